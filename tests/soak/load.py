"""Callers of a soak: independent ones who solve, some with keys, and one who runs an evaluation job after another."""

import asyncio
import threading
import uuid
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pyarrow.parquet as pq

from tests.integration.job_stack import ENDED
from tests.soak.invariants import BROKEN, LEFT, Asked, JobSeen
from tests.soak.stack import TOKENS, N, Stack

_BUDGET_MS = "20000"
_TRIES, _PAUSE_S = 4, 1.0
_PROBLEMS = 12
_UNKNOWN: dict[str, Any] = {"status": "unknown", "failed": 0}
SOLVE: dict[str, Any] = {"n": N, "sampling": {"max_tokens": TOKENS}}


class Callers:
    """Open loop, in a thread of its own; `leave` and `repeat` are told to those who come next."""

    def __init__(self, stack: Stack, rate: float, seed: int) -> None:
        self._stack, self._rate, self._rng = stack, rate, Random(f"callers {seed}")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call()))
        self.leaving = 0  # how many of the next callers leave amid
        self.repeating = 0  # how many of the next send the same ten times at once

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more are sent; all that were have ended."""
        self._ending.set()
        self._thread.join()

    async def _call(self) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=1.0)
        async with (
            httpx2.AsyncClient(base_url=self._stack.url, timeout=60, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            while not self._ending.is_set():
                await asyncio.sleep(self._rng.expovariate(self._rate))
                group.create_task(self._caller(client, self._rng.random()))

    async def _caller(self, client: httpx2.AsyncClient, dice: float) -> None:
        body = {**SOLVE, "problem": f"What is {uuid.uuid4().hex}?"}
        if self.leaving:
            self.leaving -= 1
            body["stream"] = dice < 0.5
            await self._ask(client, body, None, leave_after=0.1 + dice / 3)
        elif self.repeating:
            self.repeating -= 1
            await self._at_once(client, body)
        else:
            await self._patiently(client, body, uuid.uuid4().hex if dice < 0.3 else None)

    async def _patiently(self, client: httpx2.AsyncClient, body: dict[str, Any], key: str | None) -> None:
        """Who has a key tries again what was refused or broke off."""
        for _ in range(_TRIES if key else 1):
            if (await self._ask(client, body, key)).status == "200":
                return
            await asyncio.sleep(_PAUSE_S)

    async def _at_once(self, client: httpx2.AsyncClient, body: dict[str, Any]) -> None:
        key = uuid.uuid4().hex
        asked = await asyncio.gather(*(self._ask(client, body, key) for _ in range(10)))
        answers = {each.body for each in asked if each.status == "200"}
        if len(answers) > 1 and not any(each.status == BROKEN for each in asked):
            self._stack.record.unsteady.append(f"{len(answers)} answers to the same request at {asked[0].began:.0f} s")

    async def _ask(
        self, client: httpx2.AsyncClient, body: dict[str, Any], key: str | None, leave_after: float | None = None
    ) -> Asked:
        began, status, text = self._stack.now(), BROKEN, None
        headers = {"x-request-timeout-ms": _BUDGET_MS} | ({} if key is None else {"idempotency-key": key})
        self._stack.record.sent += 1
        try:
            async with asyncio.timeout(leave_after):
                reply = await client.post("/v1/solve", json=body, headers=headers)
            status, text = str(reply.status_code), reply.text if key else None
        except TimeoutError:
            status = LEFT
        except httpx2.TransportError:
            pass
        asked = Asked(began, self._stack.now(), status, key, text)
        self._stack.record.asked.append(asked)
        return asked


class Jobs:
    """Evaluation jobs one after another, in a thread; `poison` makes the next one hold a problem that ends workers."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.poison = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The job that runs has ended, or was waited for long enough."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            poison, self.poison = ("bad",) if self.poison else (), False
            names = (*(f"p{i}" for i in range(_PROBLEMS)), *poison)
            if (job := self._submit(names)) is not None:
                self._stack.record.jobs.append(self._await(job, names, poison))

    def _submit(self, names: tuple[str, ...]) -> str | None:
        items = [{"id": n, "problem": "the poison" if n == "bad" else f"What is {n}?", "answer": "3"} for n in names]
        body = {"dataset": {"items": items}, "n": N, "chunk": 2, "sampling": {"max_tokens": TOKENS}}
        headers = {"idempotency-key": uuid.uuid4().hex}
        while not self._ending.is_set():
            reply = self._ask("POST", "", json=body, headers=headers)
            if reply is not None and reply.status_code in (200, 202):
                return str(reply.json()["id"])
            self._ending.wait(1.0)
        return None

    def _await(self, job: str, names: tuple[str, ...], poison: tuple[str, ...], within_s: float = 180) -> JobSeen:
        deadline, seen = self._stack.now() + within_s, _UNKNOWN
        while self._stack.now() < deadline and seen["status"] not in ENDED:
            reply = self._ask("GET", f"/{job}")
            if reply is not None and reply.status_code in (200, 404):
                seen = reply.json() if reply.status_code == 200 else {"status": "lost", "failed": 0}
            threading.Event().wait(0.5)
        samples = _samples(self._stack.directory / "results" / job / "samples.parquet")
        return JobSeen(job, names, poison, N, str(seen["status"]), int(seen["failed"]), samples)

    def _ask(self, method: str, path: str, **more: Any) -> httpx2.Response | None:
        try:
            return httpx2.request(method, f"{self._stack.url}/v1/jobs{path}", timeout=30, **more)
        except httpx2.TransportError:
            return None


def _samples(table: Path) -> tuple[tuple[str, int], ...]:
    if not table.exists():
        return ()
    rows = pq.read_table(table, columns=["id", "seeds"]).to_pylist()
    return tuple((str(row["id"]), int(seed)) for row in rows for seed in row["seeds"])

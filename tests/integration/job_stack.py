"""Orchestrator, redis with its file, fake engines and any number of workers, each a process, for tests of jobs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from redis import Redis

from tests.integration.processes import ROOT, Process, free_port, running
from tests.stores import RedisServer, redis_server, server_binaries

HELD_AT_ONCE = 3  # items of one worker
ENDED = ("completed", "completed_with_errors", "failed", "cancelled")
# A shared core may be slow; what is waited for takes seconds on an idle one.
WITHIN_S = 90.0


def wait_for(what: Callable[[], Any], within_s: float = WITHIN_S, evidence: Callable[[], str] | None = None) -> Any:
    """The first truth that `what` tells. If it tells none in time, the error shows the `evidence` of that moment."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise TimeoutError("it did not come true" + (f":\n{evidence()}" if evidence else ""))


def problems(count: int, **special: str) -> list[dict[str, Any]]:
    """A data set in the body; `special` names the text of a problem by its id."""
    texts = {f"p{i}": f"What is {i} + 1?" for i in range(count)} | special
    return [
        {"id": name, "problem": text, "answer": "3", "level": 1 + i % 5} for i, (name, text) in enumerate(texts.items())
    ]


class Worker:
    """A worker process that the nursery forked."""

    def __init__(self, nursery: "Nursery", port: int, log: Path, kind: str, environment: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._nursery = nursery
        self._log = log
        given = " ".join(f"{name}={value}" for name, value in environment.items())
        self.pid = int(nursery.ask(f"start {port} {log} {kind} {given}"))
        self.code: int | None = None

    @property
    def serving(self) -> bool:
        return self.living and '"event": "serving"' in self.output

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def living(self) -> bool:
        if self.code is None and (answer := self._nursery.ask(f"poll {self.pid}")) != "alive":
            self.code = int(answer)
        return self.code is None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, number: signal.Signals) -> int:
        """Signal it, and wait for its exit code."""
        if self.living:
            self.send(number)
            self.code = int(self._nursery.ask(f"wait {self.pid}"))
        return self.code or 0

    def metrics(self) -> dict[str, float]:
        """The numbers of its jobs."""
        lines = httpx2.get(self.url + "/metrics", timeout=30).text.splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if line.startswith("e2h_jobs"))}


class Nursery:
    """See `worker_nursery.py`."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.integration.worker_nursery"]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "E2H_LOG_LEVEL": "INFO", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str) -> str:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(command + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate(timeout=30)


@dataclass
class JobStack:
    """What runs, and how to talk to it."""

    directory: Path
    redis: RedisServer
    nursery: Nursery
    generator_url: str
    orchestrator: Process
    engines: "subprocess.Popen[bytes]"
    environment: dict[str, str]
    workers: list[Worker] = field(default_factory=list)
    started: int = 0

    def worker(self, kind: str = "light", **environment: str) -> Worker:
        """Start one more, without waiting for it."""
        self.started += 1
        worker = Worker(self.nursery, free_port(), self.directory / f"worker-{self.started}.log", kind, environment)
        self.workers.append(worker)
        return worker

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.living]

    def outputs(self) -> str:
        """What each worker of now has printed, and the exit codes of those that ended."""
        return "\n".join(
            f"{worker.url} living={worker.living} {worker.code}\n{worker.output}" for worker in self.workers
        )

    def client(self) -> Redis:
        return Redis.from_url(self.redis.url)

    def submit(
        self, items: list[dict[str, Any]], key: str | None = None, at: Process | None = None, **body: Any
    ) -> str:
        """The id of a new job, taken by our orchestrator unless `at` is another."""
        headers = {} if key is None else {"idempotency-key": key}
        body = {"dataset": {"items": items}, "n": 4, "chunk": 2, **body}
        response = httpx2.post(f"{(at or self.orchestrator).url}/v1/jobs", json=body, headers=headers, timeout=30)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def look(self, job: str) -> Mapping[str, Any]:
        response = httpx2.get(f"{self.orchestrator.url}/v1/jobs/{job}", timeout=30)
        assert response.status_code == 200, response.text
        found: Mapping[str, Any] = response.json()
        return found

    def end_of(self, job: str, within_s: float = WITHIN_S) -> Mapping[str, Any]:
        """The job, once it has ended."""
        found: Mapping[str, Any] = wait_for(lambda: (j := self.look(job))["status"] in ENDED and j, within_s)
        return found

    def table(self, job: str) -> bytes:
        return (self.directory / "results" / job / "samples.parquet").read_bytes()

    def held(self, job: str) -> dict[str, str]:
        """Item to token, of the items that some worker holds."""
        with self.client() as client:
            return {k.decode(): v.decode() for k, v in client.hgetall(f"e2h:jobs:job:{job}:tokens").items()}

    def committed(self, job: str) -> dict[str, str]:
        """Item to token, of the items that are done."""
        with self.client() as client:
            return {k.decode(): v.decode() for k, v in client.hgetall(f"e2h:jobs:job:{job}:done").items()}

    def calls(self) -> dict[str, int]:
        found: dict[str, int] = httpx2.get(f"{self.generator_url}/v1/models/calls", timeout=30).json()
        return found

    def stop_workers(self) -> list[int]:
        """SIGTERM to all that live, and their exit codes."""
        codes = [worker.end(signal.SIGTERM) for worker in self.living]
        self.workers.clear()
        return codes

    def close(self) -> None:
        """No worker lives, no job runs."""
        for worker in self.living:
            worker.end(signal.SIGKILL)
        self.workers.clear()


@contextmanager
def job_stack(
    directory: Path, seconds: float = 0.05, also_redis: Sequence[str] = (), **environment: str
) -> Iterator[JobStack]:
    """Everything but workers. Leases are short, so that tests are. Settings named `also_redis` name the same redis."""
    generator, verifier, port = free_port(), free_port(), free_port()
    with ExitStack() as opened:
        redis = opened.enter_context(redis_server(server_binaries()["valkey"], directory, kept=True))
        engines = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.fake_engines", str(generator), str(verifier), str(seconds)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        opened.callback(engines.wait)
        opened.callback(engines.kill)
        environment = {
            **dict.fromkeys(("E2H_JOBS_REDIS_URL", *also_redis), redis.url),
            "E2H_JOBS_RESULTS_URL": str(directory / "results"),
            "E2H_JOBS_LEASE_S": "2",
            "E2H_JOBS_SWEEP_S": "0.2",
            "E2H_JOBS_STOP_S": "5",
            "E2H_JOBS_CONCURRENCY": str(HELD_AT_ONCE),
            "E2H_GRADING_WORKERS": "1",
            "E2H_ORCHESTRATOR_GENERATOR_URL": f"http://127.0.0.1:{generator}",
            "E2H_ORCHESTRATOR_VERIFIER_URL": f"http://127.0.0.1:{verifier}",
            "E2H_ORCHESTRATOR_PORT": str(port),
            "E2H_DRAIN_GRACE_S": "0",
            "dramatiq_restart_delay": "200",
            **environment,
        }
        nursery = Nursery(environment)
        opened.callback(nursery.close)
        orchestrator = opened.enter_context(
            running(["-m", "services.orchestrator"], directory / "orchestrator.log", port, **environment)
        )
        stack = JobStack(directory, redis, nursery, f"http://127.0.0.1:{generator}", orchestrator, engines, environment)
        opened.callback(stack.close)
        yield stack

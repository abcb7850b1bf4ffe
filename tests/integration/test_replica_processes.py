"""Replicas that are processes: killed, stopped and woken under load, and no request that fails for it."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import psutil
import pytest

from services.core.seeds import derive_seed
from services.orchestrator.routing.balancing import choose
from tests.integration.conftest import Stack
from tests.integration.processes import Process, free_port, service
from training.lab.domain import make_problem

pytestmark = [pytest.mark.processes, pytest.mark.alone, pytest.mark.timeout(600)]

PROBLEMS = [make_problem(level=2, seed=seed) for seed in range(40)]
CALLERS = 8


@dataclass(frozen=True)
class Fleet:
    """Two verifiers behind an orchestrator."""

    verifiers: tuple[Process, Process]
    orchestrator: Process

    def breaker(self, replica: int) -> float:
        name = f'e2h_upstream_breaker_state{{replica="{replica}",service="verifier"}} '
        lines = httpx2.get(f"{self.orchestrator.url}/metrics").text.splitlines()
        (line,) = (line for line in lines if line.startswith(name))
        return float(line.removeprefix(name))

    def asked(self, replica: int) -> int:
        """Score requests that a verifier has answered."""
        lines = httpx2.get(f"{self.verifiers[replica].url}/metrics").text.splitlines()
        found = (line for line in lines if line.startswith('e2h_http_requests_total{method="POST",route="/v1/score"'))
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in found))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with (
        service("verifier", tmp_path / "first.log") as first,
        service("verifier", tmp_path / "second.log") as second,
        service(
            "orchestrator",
            tmp_path / "orchestrator.log",
            ready="/health",  # there is no generator
            E2H_ORCHESTRATOR_GENERATOR_URL=f"http://127.0.0.1:{free_port()}",
            E2H_ORCHESTRATOR_VERIFIER_URL=f"{first.url},{second.url}",
        ) as orchestrator,
    ):
        yield Fleet((first, second), orchestrator)


class Load:
    """Callers who score one solution after another until told to stop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = False
        self._pool = ThreadPoolExecutor(CALLERS)
        self._callers: list[Future[list[int]]] = [self._pool.submit(self._call, place) for place in range(CALLERS)]
        self.answered = 0

    def _call(self, place: int) -> list[int]:
        statuses = []
        with httpx2.Client(base_url=self._url, timeout=60) as client:
            while not self._stopping:
                place += CALLERS
                problem = PROBLEMS[place % len(PROBLEMS)]
                body: dict[str, Any] = {"problem": problem.question, "solutions": [{"steps": list(problem.steps)}]}
                statuses.append(client.post("/v1/score", json=body).status_code)
                self.answered += 1
        return statuses

    def wait(self, answers: int) -> None:
        """Returns when so many more have been answered; the test's own time-out bounds it."""
        enough = self.answered + answers
        while self.answered < enough:
            time.sleep(0.05)

    def stop(self) -> list[int]:
        """The status of every answer."""
        self._stopping = True
        statuses = [status for caller in self._callers for status in caller.result()]
        self._pool.shutdown()
        return statuses


def until(condition: Any) -> None:
    while not condition():
        time.sleep(0.1)


def test_no_request_fails_when_a_verifier_hangs_then_the_other_is_killed(fleet: Fleet) -> None:
    first, second = fleet.verifiers
    load = Load(fleet.orchestrator.url)
    try:
        load.wait(100)
        assert fleet.asked(0) > 0
        assert fleet.asked(1) > 0
        first.popen.send_signal(signal.SIGSTOP)
        load.wait(100)
        until(lambda: fleet.breaker(0) != 0)
        load.wait(50)
        first.popen.send_signal(signal.SIGCONT)
        until(lambda: fleet.breaker(0) == 0)
        before = fleet.asked(0)
        load.wait(100)
        assert fleet.asked(0) > before
        second.popen.kill()
        load.wait(100)
        assert fleet.breaker(1) != 0
        ready = httpx2.get(f"{fleet.orchestrator.url}/ready").json()
    finally:
        first.popen.send_signal(signal.SIGCONT)
        statuses = load.stop()
    assert set(statuses) == {200}
    assert len(statuses) >= 450
    assert ready["status"] == "not_ready"  # for want of a generator


def test_without_any_replica_requests_are_refused(fleet: Fleet) -> None:
    for verifier in fleet.verifiers:
        verifier.popen.kill()
        verifier.popen.wait()
    body = {"problem": PROBLEMS[0].question, "solutions": [{"text": "so"}]}
    with httpx2.Client(base_url=fleet.orchestrator.url, timeout=60) as client:
        for _ in range(10):
            refused = client.post("/v1/score", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unavailable")
            assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503


def engine_of(generator: Process) -> list[psutil.Process]:
    """The processes in which vLLM runs a generator's model."""
    started = psutil.Process(generator.popen.pid).children(recursive=True)
    return [process for process in started if process.cmdline()[0].startswith("VLLM::")]


def test_samples_of_a_generator_that_is_killed_are_made_by_another(three: Stack, tmp_path: Path) -> None:
    with service("generator", tmp_path / "second.log") as second:
        engine = engine_of(second)
        environment = {
            "E2H_ORCHESTRATOR_GENERATOR_URL": f"{three.generator.url},{second.url}",
            "E2H_ORCHESTRATOR_VERIFIER_URL": three.verifier.url,
        }
        with service("orchestrator", tmp_path / "orchestrator.log", **environment) as orchestrator:
            # A problem whose home is the second replica, and twice as many samples as it decodes at once: when the
            # first have come, half have not begun.
            problem = next(p.question for p in PROBLEMS if choose({0: 0, 1: 0}, p.question, 0, Random()) == 1)
            body = {"problem": problem, "n": 512, "sampling": {"temperature": 1.0, "max_tokens": 200, "seed": 5}}
            with ThreadPoolExecutor(1) as pool:
                solving = pool.submit(httpx2.post, f"{orchestrator.url}/v1/solve", json=body, timeout=300)
                until(lambda: finished(second) >= 3)
                second.popen.kill()
                response = solving.result()
            metrics = httpx2.get(f"{orchestrator.url}/metrics").text
            ready = httpx2.get(f"{orchestrator.url}/ready").json()
    # Nobody stopped its engine in order; it is not left to hold its memory.
    assert engine
    assert psutil.wait_procs(engine, timeout=60)[1] == []
    assert response.status_code == 200, response.text
    solved = response.json()
    assert solved["partial"] is False
    assert [(c["index"], c["seed"]) for c in solved["candidates"]] == [(i, derive_seed(5, i)) for i in range(512)]
    (remade,) = (line for line in metrics.splitlines() if line.startswith("e2h_samples_remade_total "))
    assert 0 < float(remade.rsplit(" ", 1)[1]) <= 509
    assert ready["status"] == "ready"
    assert len(ready["degraded"]) == 1


def finished(generator: Process) -> float:
    """Samples that a generator has finished."""
    lines = httpx2.get(f"{generator.url}/metrics", timeout=60).text.splitlines()
    return sum(float(v.rsplit(" ", 1)[1]) for v in lines if v.startswith("e2h_generator_samples_total"))

"""What a solve costs beside its engines: `python -m benchmarks.solve`.

* overhead: solves (n = 8) a second on one core of an orchestrator whose engines answer at once. "in process": the
  engines are objects in the orchestrator's process, as in `e2h up`; "over HTTP": they are services, a stream of samples
  and a request for each score between them. The server has a core of its own; callers and engines have the other.
* overlap: the time of a solve whose samples come one by one and are scored one by one, by the longer of the two alone.
* replicas: requests a second with 2 and 4 replicas of a generator of fixed speed, by those with one.

Prints the report and writes it under benchmarks/results/.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx2
from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from benchmarks.instant import InstantGenerator, InstantVerifier
from services.core.contracts import GenerateRequest, SolveRequest
from services.generator.api import generator_router
from services.orchestrator.__main__ import build as build_orchestrator
from services.orchestrator.api.solve import BODIES, solve_router
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.routing import ReplicatedGenerator, RoutingMetrics
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.solver import Solver
from services.runtime.app import Lifecycle, build_app
from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings
from services.runtime.verifier_routes import VERIFIER_BODIES
from services.verifier.api import verifier_router

RESULTS = Path(__file__).resolve().parent / "results"
SOLVE = {"problem": "What is 6 times 7?", "n": 8, "include_candidates": True}
CALLERS, ROUNDS = 16, 3
SAMPLE_S, SCORE_S, SAMPLES = 0.05, 0.045, 32
SERVICE_S, REQUESTS, WAITING = 0.05, 400, 64
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=["in-process", "over-http", "generator", "verifier"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--engines", nargs=2, default=("", ""), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round of the overhead")
    options = parser.parse_args()
    if options.serve:
        sys.exit(serve(options.serve, options.port, options.engines))
    from benchmarks.machine import describe, load  # torch, which a server that is measured does not load
    from benchmarks.report import write

    report: dict[str, Any] = {"date": date.today().isoformat(), "machine": {**describe("cpu"), "load_before": load()}}
    report["overhead"] = {way: overhead(way, options.seconds) for way in ("in-process", "over-http")}
    report["overlap"] = asyncio.run(overlap())
    report["replicas"] = asyncio.run(replicas())
    print(json.dumps(report, indent=1))
    print(write("solve", report, RESULTS, date.today()).name)


# --- overhead --------------------------------------------------------------------------------------------------------


def overhead(way: str, seconds: float) -> dict[str, Any]:
    """Solves a second of wall time, and of the server's processor time."""
    cores = sorted(os.sched_getaffinity(0))
    with (
        _server("generator", cores[0]) as generator,
        _server("verifier", cores[0]) as verifier,
        _server(way, cores[-1], (generator.url, verifier.url)) as server,
    ):
        asyncio.run(_asked(server.url, 1.0))
        walls, busies = [], []
        for _ in range(ROUNDS):
            before, began = server.busy(), time.perf_counter()
            solves = asyncio.run(_asked(server.url, seconds))
            walls.append(solves / (time.perf_counter() - began))
            busies.append(solves / (server.busy() - before))
    return {
        "n": SOLVE["n"],
        "solves_per_cpu_s": round(statistics.median(busies), 1),
        "solves_per_cpu_s_range": [round(min(busies), 1), round(max(busies), 1)],
        "solves_per_s": round(statistics.median(walls), 1),
    }


async def _asked(url: str, seconds: float) -> int:
    solves, ends = 0, time.monotonic() + seconds

    async def caller(client: httpx2.AsyncClient) -> None:
        nonlocal solves
        while time.monotonic() < ends:
            (await client.post("/v1/solve", json=SOLVE)).raise_for_status()
            solves += 1

    async with httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        await asyncio.gather(*(caller(client) for _ in range(CALLERS)))
    return solves


class _Child:
    def __init__(self, pid: int, url: str) -> None:
        self._pid = pid
        self.url = url

    def busy(self) -> float:
        """Processor seconds of the process so far, its children (the grading) apart."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def _server(way: str, core: int, engines: tuple[str, str] = ("", "")) -> Iterator[_Child]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.solve", "--serve", way, "--port", str(port), "--engines", *engines]
    process = subprocess.Popen(command)
    os.sched_setaffinity(process.pid, {core})
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                if httpx2.get(f"{url}/ready", timeout=10).is_success:
                    break
            except httpx2.HTTPError:
                if process.poll() is not None:
                    raise RuntimeError("the server ended") from None
            time.sleep(0.1)
        yield _Child(process.pid, url)
    finally:
        process.terminate()
        process.wait()


def serve(way: str, port: int, engines: tuple[str, str]) -> int:
    """One server until it is told to stop."""
    runtime = RuntimeSettings(log_level="WARNING", drain_grace_s=0.0)
    configure_logging(runtime)
    if way == "over-http":
        settings = OrchestratorSettings.model_validate({"generator_url": engines[0], "verifier_url": engines[1]})
        return run(build_orchestrator(settings, runtime), port, runtime)
    registry, generator, verifier = CollectorRegistry(), InstantGenerator(), InstantVerifier()
    grader = GradingPool(GradingSettings(workers=1), GradingMetrics(registry))

    async def nothing() -> None:
        """There is no model to load or release."""

    start = stop = nothing
    if way == "generator":
        routers: list[APIRouter] = [generator_router(generator)]
    elif way == "verifier":
        routers = [verifier_router(verifier)]
    else:
        solver = Solver(generator, verifier, grader, SolveMetrics(registry))
        routers, start, stop = [solve_router(solver, grader)], grader.start, grader.close
    lifecycle = Lifecycle()
    app = build_app(
        title=way,
        routers=routers,
        bodies=[*BODIES, *VERIFIER_BODIES, GenerateRequest],
        lifecycle=lifecycle,
        registry=registry,
        settings=runtime,
    )
    return run(Service(app, lifecycle, start=start, stop=stop), port, runtime)


# --- overlap ---------------------------------------------------------------------------------------------------------


async def overlap() -> dict[str, Any]:
    """Wall time of a solve by the longer of its sampling and its scoring alone."""
    grader = GradingPool(GradingSettings(workers=1), GradingMetrics(CollectorRegistry()))
    await grader.start()
    request = SolveRequest(problem="What is 6 times 7?", n=SAMPLES)

    async def seconds(sample_s: float, score_s: float) -> float:
        solver = Solver(InstantGenerator(sample_s), InstantVerifier(score_s), grader, SolveMetrics(CollectorRegistry()))
        began = time.perf_counter()
        await solver.solve(request)
        return time.perf_counter() - began

    await seconds(0.0, 0.0)
    measured = []
    for pair in ((SAMPLE_S, 0.0), (0.0, SCORE_S), (SAMPLE_S, SCORE_S)):
        measured.append(statistics.median([await seconds(*pair) for _ in range(3)]))
    sampling, scoring, both = measured
    await grader.close()
    return {
        "n": SAMPLES,
        "sampling_s": round(sampling, 3),
        "scoring_s": round(scoring, 3),
        "both_s": round(both, 3),
        "by_the_longer": round(both / max(sampling, scoring), 3),
        "one_after_the_other": round((sampling + scoring) / max(sampling, scoring), 3),
    }


# --- replicas --------------------------------------------------------------------------------------------------------


async def replicas() -> dict[str, Any]:
    """Throughput with so many replicas, by that with one."""
    rates = {count: await _rate(count) for count in (1, 2, 4)}
    return {
        "requests_per_s": {str(count): round(rate, 1) for count, rate in rates.items()},
        "two_by_one": round(rates[2] / rates[1], 2),
        "four_by_one": round(rates[4] / rates[1], 2),
    }


async def _rate(count: int) -> float:
    routed = ReplicatedGenerator(
        [InstantGenerator(SERVICE_S, serial=True) for _ in range(count)], RoutingMetrics(CollectorRegistry())
    )
    waiting = iter(range(REQUESTS))

    async def drained(events: AsyncGenerator[Any, None]) -> None:
        async for _ in events:
            pass

    async def caller() -> None:
        for place in waiting:
            await drained(routed.generate(GenerateRequest(problem=f"problem {place}", n=1)))

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(WAITING)))
    seconds = time.perf_counter() - began
    await routed.close()
    return REQUESTS / seconds


if __name__ == "__main__":
    main()

"""The story of `e2h bench`: start or find the server, warm it, load it phase by phase, say what came of it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console

from services import __version__
from services.cli.bench.compare import compare, differing_settings
from services.cli.bench.knee import find_knee, keeps
from services.cli.bench.plan import ClosedLoop, Load, OpenLoop, Plan
from services.cli.bench.render import show_comparison, show_report
from services.cli.bench.report import Report, describe_machine, read_report, write_report
from services.cli.bench.schedule import Arrivals, rising
from services.cli.bench.senders import measure
from services.cli.bench.server import demo_environment, demo_server
from services.cli.bench.summary import Phase, summarise
from services.cli.faults import told_faults

# A sweep begins at this share of the closed loop's peak, where nobody waits, and rises by thirds of an octave. It ends
# at twice the peak, or later: where the peak was taken too low, so many rates beyond the knee, or at the most.
_LOWEST, _STEPS_AN_OCTAVE = 0.25, 3
_ENOUGH, _BEYOND, _MOST = 2.0, 3, 8.0
_ROUNDING = 1.001
# More callers are tried while they bring this much more.
_WORTH = 1.05
_CALLERS = {"verifier": (4, 8, 16, 32, 64), "solve": (1, 2, 4, 8, 16)}
_WARM_UP_S = 2.0
_WARM_UP_CALLERS = 4
# No phase sends so many; each has numbers of its own.
_BODIES_A_PHASE = 1_000_000


@dataclass(frozen=True)
class BenchOptions:
    """What the command line said. `rate` is None for a closed loop alone, and for a sweep, which `sweep` asks for."""

    url: str | None
    load: Load
    rate: float | None
    sweep: bool
    closed_loop: int | None
    arrivals: Arrivals
    duration_s: float
    slo_ms: float
    timeout_s: float
    seed: int
    senders: int
    honour_retry_after: bool
    json: Path | None
    plot: Path | None
    compare: Path | None


@dataclass
class _Bench:
    """The phases so far."""

    options: BenchOptions
    url: str
    console: Console
    phases: list[Phase] = field(default_factory=list)
    begun: int = 0

    def warm_up(self) -> None:
        """What a server does once, for nobody in particular: connections, allocations, the first passes."""
        with self.console.status("warming up"):
            measure(self._plan(ClosedLoop(callers=_WARM_UP_CALLERS), _WARM_UP_S))

    def phase(self, name: str, loop: OpenLoop | ClosedLoop) -> Phase:
        options = self.options
        plan = self._plan(loop, options.duration_s)
        with self.console.status(f"{name}: {options.duration_s:g} s"):
            samples = measure(plan, options.senders)
        self.phases.append(summarise(name, plan, samples, options.slo_ms / 1000))
        return self.phases[-1]

    def closed(self, callers: int) -> float:
        return self.phase(f"closed loop of {callers}", ClosedLoop(callers=callers)).throughput.value

    def open(self, name: str, rate: float) -> Phase:
        return self.phase(name, OpenLoop(arrivals=self.options.arrivals, rate=rate))

    def peak(self) -> float:
        """The most that a closed loop gets answered, in requests a second: more callers, while they bring more."""
        best = 0.0
        for callers in _CALLERS[self.options.load.kind]:
            found = self.closed(callers)
            if found < best * _WORTH:
                return max(best, found)
            best = found
        return best

    def sweep(self, peak: float) -> None:
        """Rising rates, past the knee."""
        beyond = 0
        for share in rising(_LOWEST, _STEPS_AN_OCTAVE):
            kept = keeps(self.open(f"{share:.2f} of peak", share * peak), self.options.slo_ms)
            beyond = 0 if kept else beyond + 1
            if share * _ROUNDING >= (_ENOUGH if beyond >= _BEYOND else _MOST):
                break

    def _plan(self, loop: OpenLoop | ClosedLoop, duration_s: float) -> Plan:
        options = self.options
        self.begun += 1
        return Plan(
            url=self.url,
            load=options.load,
            loop=loop,
            duration_s=duration_s,
            timeout_s=options.timeout_s,
            seed=options.seed,
            first=_BODIES_A_PHASE * self.begun,
            honour_retry_after=options.honour_retry_after,
        )


def run_bench(options: BenchOptions) -> int:
    """Measure, write, print. Returns the exit code: 1 when nothing was answered."""
    console = Console(stderr=True)
    with told_faults():
        old = None if options.compare is None else read_report(options.compare)
        options.load.bodies(options.seed)  # a workload that does not do is told before a server is started
        machine = describe_machine()
        environment = {} if options.url is not None else demo_environment(options.slo_ms, os.environ)
        with _server(options, environment, console) as url:
            bench = _Bench(options, url, console)
            bench.warm_up()
            peak = _measure(bench)
        report = _report(options, environment, machine, bench.phases, peak)
        if options.json is not None:
            write_report(report, options.json)
        if options.plot is not None:
            from services.cli.bench.plot import draw  # matplotlib: a second to import

            draw(report, options.plot)
        show_report(Console(), report)
        if old is not None:
            show_comparison(Console(), compare(report, old), differing_settings(report, old))
    return 0 if any("200" in phase.statuses for phase in report.phases) else 1


@contextmanager
def _server(options: BenchOptions, environment: dict[str, str], console: Console) -> Iterator[str]:
    if options.url is not None:
        yield options.url
        return
    starting = console.status("starting the demo's server")
    starting.start()
    try:
        with demo_server(options.load.kind, environment) as url:
            starting.stop()
            yield url
    finally:
        starting.stop()


def _measure(bench: _Bench) -> float | None:
    """All phases; the peak of the closed loop, if there was one."""
    options = bench.options
    peak = None
    if options.closed_loop is not None:
        peak = bench.closed(options.closed_loop)
    elif options.sweep:
        peak = bench.peak()
    if options.sweep and peak:
        bench.sweep(peak)
    elif options.rate is not None:
        bench.open(f"{options.rate:g} a second", options.rate)
    return peak


def _report(
    options: BenchOptions,
    environment: dict[str, str],
    machine: dict[str, JsonValue],
    phases: list[Phase],
    peak: float | None,
) -> Report:
    swept = [phase for phase in phases if phase.loop_is_open] if options.sweep else []
    return Report(
        kind=options.load.kind,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        machine=machine,
        server={"url": options.url or "the demo's, started here", **environment},
        settings=_settings(options),
        slo_ms=options.slo_ms,
        peak=peak,
        phases=phases,
        knee=find_knee(swept, options.slo_ms) if swept else None,
    )


def _settings(options: BenchOptions) -> dict[str, JsonValue]:
    load = options.load.model_dump(mode="json", exclude={"fresh", "workload"})
    fresh = {"fresh": options.load.fresh is not None} if options.load.kind == "verifier" else {}
    return {
        **load,
        **fresh,
        "workload": Path(options.load.workload).name,
        "arrivals": options.arrivals.value,
        "duration_s": options.duration_s,
        "timeout_s": options.timeout_s,
        "seed": options.seed,
        "senders": options.senders,
        "honour_retry_after": options.honour_retry_after,
    }


def run_number() -> str:
    """Six digits that another run hardly has: see `score_bodies`."""
    return f"{time.time_ns() // 1_000_000 % 1_000_000:06d}"

"""`e2h bench verifier | solve`: their options. What they do is in `run.py`, which loads numpy."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from services.cli.bench.schedule import Arrivals
from services.core.contracts import MAX_NEW_TOKENS, MAX_SAMPLES, MAX_SOLUTIONS
from services.core.voting import Strategy

app = typer.Typer(name="bench", help="Load a service and say what those who wait see of it.", no_args_is_help=True)

Url = Annotated[
    str | None, typer.Option(envvar="E2H_URL", help="What to load.  [default: the demo, started here and stopped]")
]
Rate = Annotated[
    str | None,
    typer.Option(
        metavar="R|sweep",
        help="Requests a second, sent when they are due whatever becomes of others; or sweep, from a quarter of the "
        "closed loop's peak to twice.  [default: sweep, unless --closed-loop is given]",
    ),
]
ArrivalsOption = Annotated[Arrivals, typer.Option("--arrivals", help="Independent of each other, or even.")]
Duration = Annotated[float, typer.Option(min=1.0, max=3600.0, help="Seconds of each phase.")]
Slo = Annotated[float, typer.Option("--slo-ms", min=1.0, help="Milliseconds within which an answer is good.")]
ClosedLoop = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, help="Also measure so many callers who each wait for the answer before they ask again."
    ),
]
Workload = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl", help='{"problem", "solutions": [...]} a line.  [default: 64 problems of the lab]'
    ),
]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600.0, help="Seconds until a caller gives up.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Of the arrivals and the order of the workload.")]
Senders = Annotated[int, typer.Option(min=1, max=32, help="Processes that send, when one falls behind its schedule.")]
Honour = Annotated[
    bool,
    typer.Option("--honour-retry-after", help="Send what was refused again, after the wait that Retry-After tells."),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="OUT.json", help="Write the report there.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="OUT.png", help="Draw it there.")]
Compare = Annotated[Path | None, typer.Option("--compare", metavar="OLD.json", help="Print the ratios to that report.")]


@app.command()
def verifier(
    url: Url = None,
    rate: Rate = None,
    arrivals: ArrivalsOption = Arrivals.POISSON,
    duration: Duration = 10.0,
    slo_ms: Slo = 1000.0,
    closed_loop: ClosedLoop = None,
    solutions: Annotated[int, typer.Option(min=1, max=MAX_SOLUTIONS, help="Solutions of each request.")] = 8,
    workload: Workload = None,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is",
            help="Send the problems as they stand, so that those sent before are known to the caches; without it each "
            "begins with a number of its own.",
        ),
    ] = False,
    timeout: Timeout = 30.0,
    seed: Seed = 0,
    senders: Senders = 1,
    honour_retry_after: Honour = False,
    json: Json = None,
    plot: Plot = None,
    compare: Compare = None,
) -> None:
    """Load POST /v1/score: rates, latencies, where the time went, batches, and the rate that it can keep."""
    _require_extra()
    from services.cli.bench.plan import ScoreLoad
    from services.cli.bench.run import BenchOptions, run_bench, run_number
    from services.cli.bench.workload import default_workload

    load = ScoreLoad(
        workload=str(workload or default_workload()), solutions=solutions, fresh=None if as_is else run_number()
    )
    number, sweep = _rate(rate, closed_loop)
    options = BenchOptions(
        url=url,
        load=load,
        rate=number,
        sweep=sweep,
        closed_loop=closed_loop,
        arrivals=arrivals,
        duration_s=duration,
        slo_ms=slo_ms,
        timeout_s=timeout,
        seed=seed,
        senders=senders,
        honour_retry_after=honour_retry_after,
        json=json,
        plot=plot,
        compare=compare,
    )
    raise typer.Exit(run_bench(options))


@app.command()
def solve(
    url: Url = None,
    rate: Rate = None,
    arrivals: ArrivalsOption = Arrivals.POISSON,
    duration: Duration = 30.0,
    slo_ms: Slo = 10_000.0,
    closed_loop: ClosedLoop = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=MAX_SAMPLES, help="Solutions to sample.")] = 8,
    strategy: Annotated[Strategy, typer.Option(help="Which candidate wins.")] = Strategy.WEIGHTED,
    max_tokens: Annotated[int, typer.Option(min=1, max=MAX_NEW_TOKENS, help="Longest sample.")] = 256,
    workload: Workload = None,
    timeout: Timeout = 120.0,
    seed: Seed = 0,
    senders: Senders = 1,
    honour_retry_after: Honour = False,
    json: Json = None,
    plot: Plot = None,
    compare: Compare = None,
) -> None:
    """Load POST /v1/solve; the problems are those of the workload, each request has a sampling seed of its own."""
    _require_extra()
    from services.cli.bench.plan import SolveLoad
    from services.cli.bench.run import BenchOptions, run_bench
    from services.cli.bench.workload import default_workload

    load = SolveLoad(workload=str(workload or default_workload()), n=n, strategy=strategy, max_tokens=max_tokens)
    number, sweep = _rate(rate, closed_loop)
    options = BenchOptions(
        url=url,
        load=load,
        rate=number,
        sweep=sweep,
        closed_loop=closed_loop,
        arrivals=arrivals,
        duration_s=duration,
        slo_ms=slo_ms,
        timeout_s=timeout,
        seed=seed,
        senders=senders,
        honour_retry_after=honour_retry_after,
        json=json,
        plot=plot,
        compare=compare,
    )
    raise typer.Exit(run_bench(options))


def _require_extra() -> None:
    missing = [name for name in ("numpy", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        typer.echo(f"error: {' and '.join(missing)} not installed\n  mend: pip install '.[bench]'", err=True)
        raise typer.Exit(2)


def _rate(rate: str | None, closed_loop: int | None) -> tuple[float | None, bool]:
    """The rate, if it is a number, and whether to sweep."""
    if rate is None:
        return None, closed_loop is None
    if rate == "sweep":
        return None, True
    try:
        number = float(rate)
    except ValueError:
        number = 0.0
    if not 0 < number <= 100_000:
        raise typer.BadParameter("a number of requests a second, up to 100000, or sweep", param_hint="--rate")
    return number, False

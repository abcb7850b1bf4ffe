"""The `e2h` command: its subcommands and their options. What they do is in the modules beside this one."""

from pathlib import Path
from typing import Annotated

import typer

from services import __version__
from services.cli import evaluation as evaluation_commands
from services.cli import keys as key_commands
from services.cli import verifier as verifier_commands
from services.cli.bench import commands as bench_commands
from services.cli.options import AsJson, GeneratorModel, Url, VerifierModel
from services.core.aggregation import Aggregation
from services.core.contracts import MAX_NEW_TOKENS, MAX_SAMPLES, MAX_STEPS
from services.core.equivalence import Mode
from services.core.seeds import MAX_SEED
from services.core.stopping import EarlyStop
from services.core.strategies import SolveStrategy

app = typer.Typer(
    name="e2h",
    help="Sample solutions of a math problem, score every step with a reward model, vote.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(verifier_commands.app)
app.add_typer(key_commands.app)
app.add_typer(evaluation_commands.app)  # without a name of its own: its commands stand beside these
app.add_typer(bench_commands.app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"e2h {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Sample solutions of a math problem, score every step with a reward model, vote."""


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the HTTP API.")] = 8100,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without API keys: anyone there may use it.")
    ] = False,
    generator: GeneratorModel = None,
    verifier: VerifierModel = None,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Take and run evaluation jobs, with a redis of its own if none is set.")
    ] = False,
    jobs_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where jobs and their results are kept.")] = Path(
        "out/jobs"
    ),
) -> None:
    """Serve everything in one process: generator, verifier and orchestrator behind one port."""
    from services.cli.up import serve

    raise typer.Exit(serve(port, host, generator, verifier, jobs_dir if jobs else None, insecure=insecure))


@app.command()
def solve(
    problem: Annotated[str, typer.Argument(help="The problem; - reads it from standard input.")],
    n: Annotated[
        int | None, typer.Option("--n", "-n", min=1, max=MAX_SAMPLES, help="Solutions to sample.  [default: 8]")
    ] = None,
    strategy: Annotated[
        SolveStrategy, typer.Option(help="Which candidate wins; beam and dvts search step by step.")
    ] = SolveStrategy.WEIGHTED,
    aggregation: Annotated[
        Aggregation | None, typer.Option(help="Step scores to one number.  [default: the verifier's]")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Sampling temperature.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, max=MAX_NEW_TOKENS, help="Longest sample.")] = 1024,
    seed: Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same samples.")] = None,
    reference: Annotated[str | None, typer.Option(help="The right answer, to be told whether it was found.")] = None,
    beam_width: Annotated[
        int | None, typer.Option(min=1, max=MAX_SAMPLES, help="Of beam and dvts: what goes on at a step.  [default: 4]")
    ] = None,
    expand: Annotated[
        int | None, typer.Option(min=1, max=MAX_SAMPLES, help="Of beam and dvts: continuations of each.  [default: 4]")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_STEPS, help="Of beam and dvts: the last step.  [default: 40]")
    ] = None,
    early_stop: Annotated[
        EarlyStop | None, typer.Option(help="End the sampling when the vote is decided, or probably is.")
    ] = None,
    generator: GeneratorModel = None,
    verifier: VerifierModel = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Solve one problem and show the evidence: answer classes, votes, weights, and a score on each step."""
    from services.cli.solve import SolveOptions, run_solve

    options = SolveOptions(
        problem=problem,
        n=n,
        strategy=strategy,
        aggregation=aggregation,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        seed=seed,
        reference=reference,
        early_stop=early_stop,
        search={"beam_width": beam_width, "expand": expand, "max_steps": max_steps},
    )
    raise typer.Exit(run_solve(options, generator, verifier, url, as_json))


@app.command()
def score(
    problem: Annotated[str, typer.Argument(help="The problem.")],
    solutions: Annotated[list[Path], typer.Argument(help="Text files with one solution each; - is standard input.")],
    verifier: VerifierModel = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Score every step of the solutions in these files."""
    from services.cli.score import run_score

    raise typer.Exit(run_score(problem, solutions, verifier, url, as_json))


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help='{"gold", "pred"} a line; - is standard input.')],
    mode: Annotated[
        Mode, typer.Option(help="reference forgives units and the like; voting is strict.")
    ] = Mode.REFERENCE,
) -> None:
    """Are these answers equal? Prints {"equal", "method", "timed_out"} for each line, in order."""
    from services.cli.grade import run_grade

    raise typer.Exit(run_grade(file, mode))


@app.command()
def worker(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of /ready and /metrics.  [default: 8103; 0: any]")
    ] = None,
) -> None:
    """Run the items of evaluation jobs (E2H_JOBS_*), against the engines that the orchestrator's settings name."""
    from services.cli.worker import run_worker

    raise typer.Exit(run_worker(port))


@app.command()
def doctor(
    generator: GeneratorModel = None,
    verifier: VerifierModel = None,
) -> None:
    """Check this machine: what is wrong, and the command that mends it."""
    from services.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(generator, verifier))


def run() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    run()

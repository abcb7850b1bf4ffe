"""`e2h eval`, `e2h report`, `e2h process-bench`: their options. What they do is in the modules beside this one."""

from collections.abc import Sequence
from typing import Annotated

import typer

from services.cli.options import AsJson, GeneratorModel, Url, VerifierModel
from services.core.contracts import MAX_NEW_TOKENS, MAX_SAMPLES
from services.core.seeds import MAX_SEED

app = typer.Typer()

# What is settled once there are samples.
_SAMPLING = (
    *("dataset", "split", "limit", "column", "n", "chunk", "seed", "temperature", "top_p", "max_tokens"),
    *("generator", "generator_url", "openai_url", "openai_model"),
)


@app.command("eval")
def evaluate(
    context: typer.Context,
    report: Annotated[str, typer.Option(metavar="DIR|URL", help="Where samples and report are kept, and found again.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="lab, math500, gsm8k, OWNER/NAME of the hub, or a path or URL of .jsonl or .parquet."),
    ] = None,
    samples_from: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="Score the samples that another evaluation keeps, instead of sampling."),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=MAX_SAMPLES, help="Samples of each problem.")] = 64,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many problems, taken from the levels in turn.  [default: all]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a hub data set.  [default: test]")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Where problem, answer, level, subject or id stands. Repeatable."),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Sampling temperature.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, max=MAX_NEW_TOKENS, help="Longest sample.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same samples.")] = 0,
    chunk: Annotated[
        int, typer.Option(min=1, max=MAX_SAMPLES, help="Samples that are kept together: what a kill can lose.")
    ] = 16,
    concurrency: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Chunks that run at once; 1 makes samples independent of interruptions."),
    ] = 8,
    generator: GeneratorModel = None,
    generator_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A generator service that samples instead.")
    ] = None,
    openai_url: Annotated[
        str | None, typer.Option(metavar="URL", help="An OpenAI-compatible server that samples instead (its /v1 URL).")
    ] = None,
    openai_model: Annotated[str | None, typer.Option(help="The model to ask that server for.")] = None,
    verifier: VerifierModel = None,
    verifier_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A verifier service that scores instead.")
    ] = None,
    no_verifier: Annotated[bool, typer.Option("--no-verifier", help="Majority voting only.")] = False,
) -> None:
    """Does the verifier help, by how much, at what N? Samples and scores a data set, and writes the report.

    Interrupted, the same command goes on where it stopped.
    """
    from services.cli.evaluate import EvalRequest, run_eval

    if samples_from is not None:
        _refuse(context, _SAMPLING, "--samples-from tells the data set, the plan and the generator")
    elif dataset is None:
        raise typer.BadParameter("say what to evaluate on: --dataset, or --samples-from")
    asked = EvalRequest(
        dataset=dataset,
        split=split,
        limit=limit,
        columns=column or [],
        plan={"n": n, "chunk": chunk, "seed": seed},
        sampling={"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens},
        report=report,
        concurrency=concurrency,
        samples_from=samples_from,
        backends={
            "generator": generator,
            "generator_url": generator_url,
            "openai_url": openai_url,
            "openai_model": openai_model,
            "verifier": verifier,
            "verifier_url": verifier_url,
            "no_verifier": no_verifier,
        },
    )
    raise typer.Exit(run_eval(asked))


@app.command()
def report(
    results: Annotated[str, typer.Argument(metavar="DIR|URL", help="Where an evaluation keeps its samples.")],
    out: Annotated[
        str | None, typer.Option(metavar="DIR|URL", help="Where the report goes.  [default: beside the samples]")
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, max=100_000, help="Random subsets of a problem's samples, where they are many.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the draws and the intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Vote again over stored samples: accuracies with intervals, verifier quality, plots. Loads no model."""
    from services.cli.report import run_report

    raise typer.Exit(run_report(results, out, draws, seed, as_json))


@app.command()
def process_bench(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSONL or Parquet with problem, steps, label; perhaps split.")
    ],
    verifier: VerifierModel = None,
    url: Url = None,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="A step that scores lower is an error.")] = 0.5,
    tune_on: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="Choose the threshold by F1 on this split instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How well does the verifier find the first error of labelled solutions? (ProcessBench)"""
    from services.cli.process_bench import run_process_bench

    raise typer.Exit(run_process_bench(file, verifier, url, threshold, tune_on, as_json))


def _refuse(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Options that would be ignored are not taken."""
    given = [
        name
        for name in names
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(f"{why}: leave out --{given[0].replace('_', '-')}")

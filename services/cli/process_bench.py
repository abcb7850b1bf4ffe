"""`e2h process-bench`: how well a verifier, here or on a server, finds the first error of labelled solutions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from services.cli.faults import told_faults
from services.cli.remote import TIMEOUT, headers
from services.cli.settings import verifier_settings
from services.core.ports import Verifier
from services.orchestrator.clients.transport import Upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.orchestrator.evaluation.process_bench import (
    LabelledSolution,
    ProcessQuality,
    process_quality,
    read_solutions,
)
from services.orchestrator.evaluation.step_scores import StepScores, score_steps
from services.runtime.logs import configure_logging
from services.runtime.settings import RuntimeSettings


def run_process_bench(
    file: str, verifier: str | None, url: str | None, threshold: float, tune_on: str | None, as_json: bool
) -> int:
    """Read, score, measure and print. Returns the exit code."""
    with told_faults():
        solutions = read_solutions(file)
        configure_logging(RuntimeSettings(log_level="WARNING", log_format="console"))
        found = asyncio.run(_score(solutions, verifier, url))
        quality = process_quality(
            solutions, found.scores, found.model, found.kind, threshold=threshold, tune_on=tune_on
        )
        if as_json:
            print(quality.model_dump_json(indent=2))  # noqa: T201 - the output that was asked for
        else:
            _show(Console(highlight=False), quality)
    return 0


async def _score(solutions: list[LabelledSolution], verifier: str | None, url: str | None) -> StepScores:
    async with _remote(url) if url is not None else _here(verifier) as asked:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("scored", total=len(solutions))
            return await score_steps(asked, solutions, lambda more: progress.advance(bar, more))


@asynccontextmanager
async def _remote(url: str) -> AsyncIterator[Verifier]:
    client = httpx2.AsyncClient(base_url=url, headers=headers(), timeout=TIMEOUT)
    verifier = HttpVerifier(Upstream("server", client))
    try:
        yield verifier
    finally:
        await verifier.close()


@asynccontextmanager
async def _here(model: str | None) -> AsyncIterator[Verifier]:
    from services.verifier.cache import build_score_cache
    from services.verifier.metrics import VerifierMetrics  # torch: seconds to import, not needed with --url
    from services.verifier.service import LocalVerifier

    settings, registry = verifier_settings(model), CollectorRegistry()
    local = LocalVerifier(settings, VerifierMetrics(registry), build_score_cache(settings, registry))
    await local.start()
    try:
        yield local
    finally:
        await local.close()


def _show(console: Console, quality: ProcessQuality) -> None:
    table = Table(title="First errors", title_justify="left", title_style="bold")
    table.add_column("split")
    for name in ("solutions", "with error", "unscored", "error found", "none found", "F1", "step AUROC"):
        table.add_column(name, justify="right")
    for split in quality.splits:
        counts = (split.solutions, split.erroneous, split.unscored)
        shares = (split.accuracy_erroneous, split.accuracy_correct, split.f1)
        cells = [*map(str, counts), *map(_percent, shares), _number(split.step_auroc)]
        table.add_row(Text(split.split), *cells)
    console.print(table)
    tuned = "" if quality.tuned_on is None else f", chosen on {quality.tuned_on}"
    mean = "" if quality.mean_f1 is None else f"; F1 {_percent(quality.mean_f1)}, mean of the splits"
    line = f"{quality.model} ({quality.kind}): an error is a step under {quality.threshold:.4g}{tuned}{mean}"
    console.print(line, markup=False, style="dim", soft_wrap=True)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

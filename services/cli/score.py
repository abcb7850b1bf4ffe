"""`e2h score`: the steps of given solutions, scored here or on a server."""

import asyncio
import sys
from pathlib import Path

import typer
from prometheus_client import CollectorRegistry
from rich.console import Console

from services.cli.faults import EXIT_USAGE, told_faults
from services.cli.remote import post
from services.cli.render import show_scores
from services.cli.settings import verifier_settings
from services.core.contracts import ScoreRequest, ScoreResponse, SolutionInput
from services.core.steps import split_steps
from services.runtime.logs import configure_logging
from services.runtime.settings import RuntimeSettings


def run_score(problem: str, files: list[Path], verifier: str | None, url: str | None, as_json: bool) -> int:
    """Score and print. Returns the exit code."""
    with told_faults():
        texts = [_read(file) for file in files]
        request = ScoreRequest(problem=problem, solutions=[SolutionInput(text=text) for text in texts])
        if url is not None:
            response = post(url, "/v1/score", request, ScoreResponse)
        else:
            configure_logging(RuntimeSettings(log_level="WARNING", log_format="console"))
            response = asyncio.run(_score_here(request, verifier))
        if as_json:
            print(response.model_dump_json(indent=2))  # noqa: T201 - the output that was asked for
        else:
            show_scores(Console(), response, [split_steps(text) for text in texts], [str(file) for file in files])
    return 0


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        Console(stderr=True).print(f"error: cannot read {file}: {type(error).__name__}", markup=False)
        raise typer.Exit(EXIT_USAGE) from None


async def _score_here(request: ScoreRequest, verifier: str | None) -> ScoreResponse:
    from services.verifier.cache import build_score_cache
    from services.verifier.metrics import VerifierMetrics  # torch: seconds to import, not needed with --url
    from services.verifier.service import LocalVerifier

    settings, registry = verifier_settings(verifier), CollectorRegistry()
    local = LocalVerifier(settings, VerifierMetrics(registry), build_score_cache(settings, registry))
    await local.start()
    try:
        response, _ = await local.score(request)
    finally:
        await local.close()
    return response

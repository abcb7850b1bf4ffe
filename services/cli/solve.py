"""`e2h solve`: one problem, here or on a server, with a progress bar and the evidence."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress

from services.cli.faults import told_faults
from services.cli.progress import progress
from services.cli.remote import post
from services.cli.render import show_solve
from services.cli.settings import generator_settings, verifier_settings
from services.core.aggregation import Aggregation
from services.core.contracts import (
    CandidateEvent,
    ScoreEvent,
    SearchOptions,
    SolveEvent,
    SolveRequest,
    SolveResponse,
    SolveSampling,
)
from services.core.errors import InternalError
from services.core.stopping import EarlyStop
from services.core.strategies import SolveStrategy
from services.orchestrator.solver import Solver
from services.runtime.logs import configure_logging
from services.runtime.settings import RuntimeSettings


@dataclass(frozen=True)
class SolveOptions:
    """What the command line said."""

    problem: str
    n: int | None
    strategy: SolveStrategy
    aggregation: Aggregation | None
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None
    reference: str | None
    early_stop: EarlyStop | None
    search: Mapping[str, int | None]

    def request(self) -> SolveRequest:
        """Raises pydantic's `ValidationError`, as the HTTP API would answer 422."""
        # What was not said is left out: a search takes no n, and a vote no shape of a search.
        said = {name: value for name, value in self.search.items() if value is not None}
        own: dict[str, Any] = {} if self.n is None else {"n": self.n}
        if said:
            own["search"] = SearchOptions(**said)
        return SolveRequest(
            problem=sys.stdin.read() if self.problem == "-" else self.problem,
            strategy=self.strategy,
            aggregation=self.aggregation,
            sampling=SolveSampling(
                temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed
            ),
            early_stop=False if self.early_stop is None else self.early_stop.value,
            reference=self.reference,
            **own,
        )


def run_solve(
    options: SolveOptions, generator: str | None, verifier: str | None, url: str | None, as_json: bool
) -> int:
    """Solve and print. Returns the exit code."""
    with told_faults():
        request = options.request()
        if url is not None:
            response = _ask_server(url, request)
        else:
            configure_logging(RuntimeSettings(log_level="WARNING", log_format="console"))
            response = asyncio.run(_solve_here(request, generator, verifier))
        if as_json:
            print(response.model_dump_json(indent=2))  # noqa: T201 - the output that was asked for
        else:
            show_solve(Console(), response)
    return 0


def _ask_server(url: str, request: SolveRequest) -> SolveResponse:
    waiting = "searching" if request.strategy.searches else f"waiting for {request.n} samples"
    with Console(stderr=True).status(waiting):
        return post(url, "/v1/solve", request, SolveResponse)


async def _solve_here(request: SolveRequest, generator: str | None, verifier: str | None) -> SolveResponse:
    from services.allinone import AllInOne  # torch and vllm: seconds to import, not needed with --url

    everything = AllInOne(generator_settings(generator), verifier_settings(verifier))
    try:
        with progress(transient=True) as shown:
            loading = shown.add_task("loading models", total=None)
            await everything.start()
            shown.remove_task(loading)
            return await _follow(everything.solver, request, _Bars(shown, request))
    finally:
        await everything.close()


async def _follow(solver: Solver, request: SolveRequest, bars: "_Bars") -> SolveResponse:
    async with aclosing(solver.events(request)) as events:
        async for event in events:
            if isinstance(event, SolveResponse):
                return event
            bars.show(event)
    raise InternalError("the solve ended without its last event")


class _Bars:
    """Two bars: samples that arrived, samples that were scored; a search does not know how many there will be."""

    def __init__(self, progress: Progress, request: SolveRequest) -> None:
        self._progress = progress
        total = None if request.strategy.searches else request.n
        self._sampled = progress.add_task("sampled", total=total)
        self._scored = progress.add_task("scored", total=total) if request.strategy.needs_scores else None

    def show(self, event: SolveEvent) -> None:
        if isinstance(event, CandidateEvent):
            self._progress.advance(self._sampled)
        elif isinstance(event, ScoreEvent) and self._scored is not None:
            self._progress.advance(self._scored)

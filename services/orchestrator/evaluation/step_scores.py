"""Step scores of many labelled solutions from a verifier: batched by problem, so many requests at a time. Knows the
port, no client."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.core.contracts import ScoreRequest, ScoreResponse, SolutionInput, SolutionScore
from services.core.contracts.scoring import VerifierKind
from services.core.errors import InvalidRequest, Overloaded, RateLimited, UpstreamContract
from services.core.ports import Verifier
from services.orchestrator.evaluation.process_bench import LabelledSolution

_AT_ONCE = 8  # requests: enough to fill a batch, few enough for any queue
_MOST_TOGETHER = 64  # solutions of one request
_TRIES = 10  # of a request that the verifier's queue or rate refuses


@dataclass(frozen=True, slots=True)
class StepScores:
    """Scores in the order of the solutions, None where one could not be scored, and who gave them."""

    scores: tuple[tuple[float, ...] | None, ...]
    model: str
    kind: VerifierKind


async def score_steps(
    verifier: Verifier, solutions: Sequence[LabelledSolution], told: Callable[[int], None] = lambda scored: None
) -> StepScores:
    """Score every solution, at least one. `told` hears how many more are scored.

    Raises `InvalidRequest` when the verifier scores no steps, `UpstreamContract` when it gives a wrong number of them,
    and what the port raises; a refusal for load is tried again.
    """
    slots = asyncio.Semaphore(_AT_ONCE)
    scores: list[tuple[float, ...] | None] = [None] * len(solutions)
    served: list[ScoreResponse] = []

    async def score(places: list[int]) -> None:
        async with slots:
            response = await _asked(verifier, [solutions[i] for i in places])
        served.append(response)
        for i, scored in zip(places, response.solutions, strict=True):
            scores[i] = _steps_of(scored, solutions[i])
        told(len(places))

    try:
        async with asyncio.TaskGroup() as work:
            for places in _batches(solutions):
                work.create_task(score(places))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return StepScores(tuple(scores), served[0].model, served[0].kind)


def _batches(solutions: Sequence[LabelledSolution]) -> Iterator[list[int]]:
    """Places of solutions of the same problem: they share its prefix."""
    by_problem: dict[str, list[int]] = {}
    for place, solution in enumerate(solutions):
        by_problem.setdefault(solution.problem, []).append(place)
    for places in by_problem.values():
        for start in range(0, len(places), _MOST_TOGETHER):
            yield places[start : start + _MOST_TOGETHER]


async def _asked(verifier: Verifier, solutions: Sequence[LabelledSolution]) -> ScoreResponse:
    request = ScoreRequest(problem=solutions[0].problem, solutions=[SolutionInput(steps=s.steps) for s in solutions])
    for left in reversed(range(_TRIES)):
        try:
            response, _ = await verifier.score(request)
            break
        except (Overloaded, RateLimited) as error:
            if not left:
                raise
            await asyncio.sleep(error.retry_after_s)
    if response.kind == "orm":
        raise InvalidRequest("this verifier scores whole solutions, no steps: it finds no first error")
    if len(response.solutions) != len(solutions):
        raise UpstreamContract("the verifier gave a wrong number of solutions")
    return response


def _steps_of(scored: SolutionScore, solution: LabelledSolution) -> tuple[float, ...] | None:
    if scored.error is not None:
        return None
    if len(scored.steps) != len(solution.steps):
        raise UpstreamContract("the verifier gave a wrong number of step scores")
    return tuple(step.score for step in scored.steps)

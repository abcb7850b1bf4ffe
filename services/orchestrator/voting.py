"""`POST /v1/vote`: choosing again among candidates that the caller holds."""

import asyncio
from collections.abc import Callable, Sequence

from services.core.aggregation import Aggregation, aggregate
from services.core.answers import extract_answer
from services.core.contracts import VoteCandidate, VoteRequest, VoteResponse
from services.core.ports import Grader
from services.core.voting import Candidate, select
from services.orchestrator.answering import solve_classes


async def vote(request: VoteRequest, aggregation: Aggregation, grader: Grader) -> VoteResponse:
    """The winner among the first n candidates. `aggregation` makes one number of step scores."""
    # In a thread: reading answers out of a thousand long texts takes its time.
    candidates = await asyncio.to_thread(_candidates, request, aggregation)
    selection = select(candidates, request.strategy, await keys_of(candidates, grader))
    return VoteResponse(
        answer=selection.answer,
        margin=selection.margin,
        classes=solve_classes(selection.classes),
        index=selection.index,
    )


async def keys_of(
    candidates: Sequence[Candidate], grader: Grader, known: dict[str, str] | None = None
) -> Callable[[str], str]:
    """The class of each candidate's answer, named by `grader`; what it names is remembered in `known`."""
    keys = {} if known is None else known
    answers = list(dict.fromkeys(c.answer for c in candidates if c.answer is not None and c.answer not in keys))
    if answers:
        keys.update(zip(answers, await grader.keys(answers), strict=True))
    return keys.__getitem__


def _candidates(request: VoteRequest, aggregation: Aggregation) -> list[Candidate]:
    return [_candidate(i, c, aggregation) for i, c in enumerate(request.candidates[: request.n])]


def _candidate(index: int, given: VoteCandidate, aggregation: Aggregation) -> Candidate:
    answer = given.answer if given.text is None else extract_answer(given.text)
    if given.score is not None:
        return Candidate(index, answer, given.score)
    return Candidate(index, answer, aggregate(given.step_scores or [], given.outcome, aggregation))

"""`POST /v1/vote`: choosing again among candidates that the caller holds. Pure."""

from services.core.aggregation import Aggregation, aggregate
from services.core.answers import extract_answer
from services.core.contracts import VoteCandidate, VoteRequest, VoteResponse
from services.core.voting import Candidate, select
from services.orchestrator.answering import solve_classes


def vote(request: VoteRequest, aggregation: Aggregation) -> VoteResponse:
    """The winner among the first n candidates. `aggregation` makes one number of step scores."""
    candidates = [_candidate(i, c, aggregation) for i, c in enumerate(request.candidates[: request.n])]
    selection = select(candidates, request.strategy)
    return VoteResponse(
        answer=selection.answer,
        margin=selection.margin,
        classes=solve_classes(selection.classes),
        index=selection.index,
    )


def _candidate(index: int, given: VoteCandidate, aggregation: Aggregation) -> Candidate:
    answer = given.answer if given.text is None else extract_answer(given.text)
    if given.score is not None:
        return Candidate(index, answer, given.score)
    return Candidate(index, answer, aggregate(given.step_scores or [], given.outcome, aggregation))

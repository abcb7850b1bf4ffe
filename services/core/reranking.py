"""A ranking out of step scores: documents are solutions, the query is their problem. Pure."""

import uuid

from services.core.aggregation import Aggregation
from services.core.contracts import (
    ItemError,
    RerankDocument,
    RerankRequest,
    RerankResponse,
    RerankResult,
    RerankUsage,
    ScoreRequest,
    ScoreResponse,
    SolutionInput,
    SolutionScore,
)
from services.core.errors import ContextLengthExceeded, InvalidRequest, UpstreamContract


def score_request(request: RerankRequest) -> ScoreRequest:
    """The scores that this ranking needs."""
    solutions = [SolutionInput(text=document.text) for document in request.documents]
    return ScoreRequest(problem=request.query, solutions=solutions, model=request.model)


def rank(request: RerankRequest, scored: ScoreResponse, how: Aggregation) -> RerankResponse:
    """The documents of `request` by their score under `how`, best first, ties in the order of the request.

    Raises the `InvalidRequest` of the first document that has no score, whose place in a ranking would be invented;
    `UpstreamContract` when the verifier gives no such aggregate.
    """
    results = [
        _result(document, solution, how, bool(request.return_documents))
        for document, solution in zip(request.documents, scored.solutions, strict=True)
    ]
    results.sort(key=lambda result: (-result.relevance_score, result.index))
    return RerankResponse(
        id=f"rerank-{uuid.uuid4().hex}",
        model=scored.model,
        results=results[: request.top_n],
        usage=RerankUsage(total_tokens=scored.usage.tokens),
    )


def _result(document: RerankDocument, solution: SolutionScore, how: Aggregation, with_text: bool) -> RerankResult:
    if solution.error is not None:
        raise _unscored(solution.index, solution.error)
    score: float | None = getattr(solution.aggregate, how.value)
    if score is None:
        raise UpstreamContract(f"the verifier gave no aggregate {how.value}, its own default")
    return RerankResult(
        index=solution.index,
        relevance_score=score,
        document=document if with_text else None,
        step_scores=[step.score for step in solution.steps],
    )


def _unscored(index: int, error: ItemError) -> InvalidRequest:
    message, param = f"document {index} cannot be scored: {error.message}", f"documents.{index}"
    if error.code == ContextLengthExceeded.code:
        return ContextLengthExceeded(message, param=param)
    return InvalidRequest(message, param=param, code=error.code)

"""A ranking out of step scores, with plain values."""

import pytest

from services.core.aggregation import Aggregation
from services.core.contracts import (
    Aggregates,
    ItemError,
    RerankRequest,
    RerankResponse,
    ScoreResponse,
    ScoreUsage,
    SolutionInput,
    SolutionScore,
    StepScore,
)
from services.core.errors import ContextLengthExceeded, E2HError, InvalidRequest, UpstreamContract
from services.core.reranking import rank, score_request

TEXTS = ["first", "second", "third"]


def asked(count: int = 3, **fields: object) -> RerankRequest:
    return RerankRequest.model_validate({"query": "why?", "documents": TEXTS[:count], **fields})


def solution(index: int, *steps: float, outcome: float | None = None, error: ItemError | None = None) -> SolutionScore:
    whole = None if error else min(steps, default=None)
    return SolutionScore(
        index=index,
        steps=[StepScore(score=p) for p in steps],
        outcome=outcome,
        aggregate=Aggregates(prod=None, min=whole, mean=None, last=None, outcome=outcome),
        first_error=None,
        tokens=10,
        cached=False,
        flags=[],
        error=error,
    )


def scored(*solutions: SolutionScore) -> ScoreResponse:
    tokens = 10 * len(solutions)
    usage = ScoreUsage(tokens=tokens, tokens_computed=tokens - 10, tokens_cached=10)
    return ScoreResponse(id="s", model="m", kind="oprm", solutions=list(solutions), usage=usage)


def order(response: RerankResponse) -> list[int]:
    return [result.index for result in response.results]


SCORED = scored(solution(0, 0.9, 0.2, outcome=0.5), solution(1, 0.8, 0.7, outcome=0.5), solution(2, 0.4, outcome=0.6))


def test_the_query_is_the_problem_and_the_documents_are_its_solutions() -> None:
    request = RerankRequest.model_validate({"query": "why?", "documents": ["a", {"text": "b"}], "model": "m"})
    wanted = score_request(request)
    assert (wanted.problem, wanted.model) == ("why?", "m")
    assert wanted.solutions == [SolutionInput(text="a"), SolutionInput(text="b")]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        pytest.param(Aggregation.MIN, [1, 2, 0], id="best first"),
        pytest.param(Aggregation.OUTCOME, [2, 0, 1], id="ties in the order of the request"),
    ],
)
def test_documents_stand_by_their_score(how: Aggregation, expected: list[int]) -> None:
    response = rank(asked(), SCORED, how)
    assert order(response) == expected
    found = {result.index: result.relevance_score for result in response.results}
    assert found == {s.index: getattr(s.aggregate, how) for s in SCORED.solutions}


def test_a_result_has_the_score_of_each_step_and_the_usage_counts_every_input() -> None:
    response = rank(asked(), SCORED, Aggregation.MIN)
    assert [result.step_scores for result in response.results] == [[0.8, 0.7], [0.4], [0.9, 0.2]]
    assert (response.model, response.usage.total_tokens) == ("m", 30)


@pytest.mark.parametrize(("top_n", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 0]), (10**9, [1, 2, 0])])
def test_top_n_cuts_the_ranking_and_no_more_than_there_is(top_n: int, expected: list[int]) -> None:
    assert order(rank(asked(top_n=top_n), SCORED, Aggregation.MIN)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, [None] * 3), (False, [None] * 3), (True, ["second", "third", "first"])],
)
def test_documents_come_back_when_asked_for(given: bool | None, expected: list[str | None]) -> None:
    response = rank(asked(return_documents=given), SCORED, Aggregation.MIN)
    assert [result.document and result.document.text for result in response.results] == expected
    assert ("document" in response.results[0].model_dump()) == bool(given)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param("context_length_exceeded", ContextLengthExceeded, id="too long"),
        pytest.param("empty_step", InvalidRequest, id="no reasoning"),
        pytest.param("non_finite", InvalidRequest, id="no number"),
    ],
)
def test_a_document_without_a_score_has_no_place_in_a_ranking(code: str, error: type[E2HError]) -> None:
    broken = solution(1, error=ItemError(code=code, message="has 900 tokens"))
    with pytest.raises(error) as caught:
        rank(asked(2), scored(solution(0, 0.5), broken), Aggregation.MIN)
    assert (caught.value.status, caught.value.code, caught.value.param) == (422, code, "documents.1")
    assert caught.value.message == "document 1 cannot be scored: has 900 tokens"


def test_a_verifier_without_its_own_default_aggregate_breaks_the_contract() -> None:
    with pytest.raises(UpstreamContract):
        rank(asked(1), scored(solution(0, 0.5)), Aggregation.PROD)

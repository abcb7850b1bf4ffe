"""Choosing again among candidates that the caller holds, as a function and over HTTP."""

from typing import Any

import httpx2
import pytest

from services.core.aggregation import Aggregation
from services.core.contracts import VoteRequest, VoteResponse
from services.orchestrator.voting import vote
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, unreachable
from tests.serving import all_in_one_app


async def voted(request: VoteRequest, how: Aggregation) -> VoteResponse:
    return await vote(request, how, InlineGrader())


def request(**fields: Any) -> VoteRequest:
    return VoteRequest.model_validate(fields)


THREE = [
    {"answer": "42", "step_scores": [0.5, 0.5]},
    {"answer": "41", "step_scores": [1.0, 0.125]},
    {"text": "So.\n\n# Answer\n\n42", "step_scores": [0.25, 0.75]},
]


@pytest.mark.parametrize(
    ("how", "weights"),
    [
        pytest.param(Aggregation.PROD, {"42": 0.25 + 0.1875, "41": 0.125}, id="prod"),
        pytest.param(Aggregation.MIN, {"42": 0.75, "41": 0.125}, id="min"),
        pytest.param(Aggregation.MEAN, {"42": 1.0, "41": 0.5625}, id="mean"),
        pytest.param(Aggregation.LAST, {"42": 1.25, "41": 0.125}, id="last"),
        pytest.param(Aggregation.OUTCOME, {}, id="none of them has an outcome"),
    ],
)
async def test_step_scores_are_aggregated_as_asked(how: Aggregation, weights: dict[str, float]) -> None:
    response = await voted(request(candidates=THREE), how)
    assert {c.answer: c.weight for c in response.classes} == weights


@pytest.mark.parametrize(
    ("n", "members"),
    [(None, [[0, 2], [1]]), (1, [[0]]), (2, [[0], [1]]), (3, [[0, 2], [1]]), (1024, [[0, 2], [1]])],
)
async def test_only_the_first_n_candidates_vote(n: int | None, members: list[list[int]]) -> None:
    response = await voted(request(candidates=THREE, n=n), Aggregation.PROD)
    assert [c.members for c in response.classes] == members


@pytest.mark.parametrize(
    "candidate",
    [
        pytest.param({"score": 0.9}, id="no answer"),
        pytest.param({"text": "I do not know.", "score": 0.9}, id="a text without an answer"),
        pytest.param({"answer": "7"}, id="no score"),
        pytest.param({"answer": "7", "step_scores": []}, id="no step scores"),
        pytest.param({"answer": "7", "outcome": 0.9}, id="an outcome where steps are asked"),
    ],
)
async def test_a_candidate_without_answer_or_score_has_no_vote(candidate: dict[str, Any]) -> None:
    response = await voted(request(candidates=[candidate, {"answer": "42", "score": 0.1}]), Aggregation.PROD)
    assert (response.answer, response.index, response.margin) == ("42", 1, 1.0)
    assert [c.members for c in response.classes] == [[1]]


async def test_a_given_score_is_taken_as_it_is() -> None:
    response = await voted(request(candidates=[{"answer": "1", "score": 0.7, "outcome": 0.1}]), Aggregation.OUTCOME)
    assert response.classes[0].weight == 0.7


async def test_nobody_who_can_vote_gives_no_answer() -> None:
    response = await voted(request(candidates=[{}]), Aggregation.PROD)
    assert (response.answer, response.index, response.margin, response.classes) == (None, None, 0.0, [])


async def post(body: dict[str, Any], verifier: FakeVerifier) -> httpx2.Response:
    transport = httpx2.ASGITransport(all_in_one_app(FakeGenerator(["x"]), verifier))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/v1/vote", json=body)


async def test_without_an_aggregation_it_is_the_one_of_the_verifier() -> None:
    response = await post({"candidates": THREE}, FakeVerifier(default_aggregation=Aggregation.LAST))
    assert response.json()["classes"][0]["weight"] == 1.25


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        pytest.param({"candidates": THREE, "aggregation": "min"}, "42", id="the aggregation is given"),
        pytest.param({"candidates": THREE, "strategy": "majority"}, "42", id="a majority needs none"),
        pytest.param({"candidates": [{"answer": "9", "score": 0.5}]}, "9", id="scores are given"),
        pytest.param({"candidates": [{"answer": "9", "outcome": 0.5}]}, "9", id="outcomes are given"),
    ],
)
async def test_a_vote_that_needs_no_default_needs_no_verifier(body: dict[str, Any], answer: str) -> None:
    response = await post(body, FakeVerifier(info_failure=unreachable()))
    assert (response.status_code, response.json()["answer"]) == (200, answer)


async def test_a_vote_that_needs_the_default_of_a_missing_verifier_is_told_so() -> None:
    response = await post({"candidates": THREE}, FakeVerifier(info_failure=unreachable()))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_unavailable")

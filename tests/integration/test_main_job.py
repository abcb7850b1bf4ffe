"""The main job through real processes: real vLLM, the real reward model, real HTTP, the demo pair."""

from typing import Any

import cohere
import httpx2
import pytest

from services.core.aggregation import Aggregation, aggregate
from services.core.contracts import SolveResponse
from services.core.steps import split_steps
from tests.integration.conftest import Stack
from tests.integration.processes import Process
from training.lab.domain import make_problem

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

PROBLEM = make_problem(level=4, seed=3)
REQUEST: dict[str, Any] = {
    "problem": PROBLEM.question,
    "n": 16,
    "sampling": {"temperature": 1.0, "max_tokens": 200, "seed": 7},
    "reference": PROBLEM.answer,
}


def solve(url: str, **changes: Any) -> SolveResponse:
    response = httpx2.post(f"{url}/v1/solve", json={**REQUEST, **changes}, timeout=120)
    assert response.status_code == 200, response.text
    assert response.headers["x-request-id"]
    return SolveResponse.model_validate_json(response.content)


def evidence(response: SolveResponse) -> list[tuple[Any, ...]]:
    """All of a response but float noise, ids and clocks."""
    classes = [(c.answer, c.members) for c in response.classes]
    candidates = [(c.index, c.text, c.answer, c.tokens, c.seed, c.excluded) for c in response.candidates]
    return [(response.answer, response.solution, response.correct), *classes, *candidates]


def scores(response: SolveResponse) -> list[float]:
    found = [s.score for c in response.candidates for s in c.steps] + [c.outcome for c in response.candidates]
    return [score for score in found if score is not None]


def test_a_problem_is_solved_over_http_with_its_evidence(three: Stack) -> None:
    response = solve(three.orchestrator.url)
    assert [c.index for c in response.candidates] == list(range(16))
    assert response.answer == response.classes[0].answer
    assert response.correct == (response.answer == PROBLEM.answer)
    assert response.usage.completion_tokens == sum(c.tokens for c in response.candidates) > 0
    assert response.usage.verifier_tokens_computed > 0
    assert response.aggregation is not None
    for candidate in response.candidates:
        assert [s.text for s in candidate.steps] == split_steps(candidate.text)
        known = [s.score for s in candidate.steps if s.score is not None]
        assert candidate.score == aggregate(known, candidate.outcome, response.aggregation)
    votes = {c.answer: sum(response.candidates[i].score or 0 for i in c.members) for c in response.classes}
    assert max(votes, key=lambda answer: votes[answer]) == response.answer
    assert {c.answer: c.weight for c in response.classes} == pytest.approx(votes)


def test_three_processes_and_one_give_the_same_evidence(three: Stack, all_in_one: Process) -> None:
    apart, together = solve(three.orchestrator.url), solve(all_in_one.url)
    assert evidence(apart) == evidence(together)
    assert scores(apart) == pytest.approx(scores(together), abs=1e-4)


def test_the_same_seed_gives_the_same_evidence_twice_and_another_seed_does_not(all_in_one: Process) -> None:
    first, second = solve(all_in_one.url), solve(all_in_one.url)
    assert evidence(first) == evidence(second)
    other = solve(all_in_one.url, sampling={**REQUEST["sampling"], "seed": 8})
    assert evidence(first) != evidence(other)


@pytest.mark.parametrize("strategy", ["weighted", "best_of_n", "majority"])
@pytest.mark.parametrize("aggregation", [None, *Aggregation])
def test_every_strategy_and_aggregation_answers(all_in_one: Process, strategy: str, aggregation: str | None) -> None:
    response = solve(all_in_one.url, strategy=strategy, aggregation=aggregation, n=4, include_candidates=False)
    assert response.strategy == strategy
    assert response.candidates == []
    assert sum(c.votes for c in response.classes) <= 4
    assert (response.model.verifier is None) == (strategy == "majority")


def test_voting_again_on_the_evidence_gives_the_same_winner(three: Stack) -> None:
    response = solve(three.orchestrator.url)
    candidates = [
        {"text": c.text, "step_scores": [s.score for s in c.steps], "outcome": c.outcome} for c in response.candidates
    ]
    again = httpx2.post(f"{three.orchestrator.url}/v1/vote", json={"candidates": candidates}).json()
    assert (again["answer"], again["margin"]) == (response.answer, pytest.approx(response.margin))
    first_four = httpx2.post(f"{three.orchestrator.url}/v1/vote", json={"candidates": candidates, "n": 4}).json()
    assert {i for c in first_four["classes"] for i in c["members"]} <= set(range(4))


def test_the_orchestrator_ranks_the_candidates_as_the_verifier_does(three: Stack) -> None:
    texts = list(dict.fromkeys(c.text for c in solve(three.orchestrator.url).candidates if c.score is not None))
    rankings = []
    for service in (three.verifier, three.orchestrator):
        with cohere.ClientV2(api_key="none", base_url=service.url) as client:
            rankings.append(client.rerank(model="models/verifier", query=PROBLEM.question, documents=texts).results)
    assert len(texts) > 1
    assert [r.index for r in rankings[0]] == [r.index for r in rankings[1]]
    assert [r.relevance_score for r in rankings[0]] == pytest.approx([r.relevance_score for r in rankings[1]], abs=1e-4)
    assert [r.relevance_score for r in rankings[0]] == sorted((r.relevance_score for r in rankings[0]), reverse=True)


def test_the_dead_verifier_is_forgiven_only_on_request(three: Stack, tmp_path: Any) -> None:
    from tests.integration.processes import free_port, service

    nowhere = f"http://127.0.0.1:{free_port()}"
    environment = {"E2H_ORCHESTRATOR_GENERATOR_URL": three.generator.url, "E2H_ORCHESTRATOR_VERIFIER_URL": nowhere}
    with service("orchestrator", tmp_path / "log", ready="/health", **environment) as lonely:
        assert httpx2.get(f"{lonely.url}/ready").status_code == 503
        refused = httpx2.post(f"{lonely.url}/v1/solve", json=REQUEST, timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        answered = solve(lonely.url, on_verifier_failure="majority")
        assert answered.degraded == "majority"
        assert answered.classes[0].weight == answered.classes[0].votes

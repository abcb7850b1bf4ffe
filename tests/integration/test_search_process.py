"""Step-level search through real processes: real vLLM, the real reward model, real HTTP, the demo pair."""

import json
from typing import Any

import httpx2
import pytest

from services.core.aggregation import aggregate
from services.core.contracts import SolveResponse
from services.core.steps import split_steps
from tests.integration.conftest import Stack
from tests.integration.processes import Process, e2h
from training.lab.domain import make_problem

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

PROBLEM = make_problem(level=4, seed=3)
SAMPLING = {"temperature": 1.0, "max_tokens": 300, "seed": 7}
searches = pytest.mark.parametrize("strategy", ["beam", "dvts"])


def solve(url: str, strategy: str, **changes: Any) -> SolveResponse:
    body = {"problem": PROBLEM.question, "strategy": strategy, "sampling": SAMPLING, **changes}
    response = httpx2.post(f"{url}/v1/solve", json=body, timeout=300)
    assert response.status_code == 200, response.text
    return SolveResponse.model_validate_json(response.content)


def evidence(response: SolveResponse) -> list[tuple[Any, ...]]:
    """All of a response but float noise, ids and clocks."""
    return [
        (response.answer, response.solution, response.usage.completion_tokens),
        *((c.index, c.text, c.answer, c.tokens, c.seed, c.finish_reason, c.excluded) for c in response.candidates),
    ]


@searches
def test_a_search_answers_with_scored_steps_and_repeats_itself_under_its_seed(three: Stack, strategy: str) -> None:
    response = solve(three.orchestrator.url, strategy)
    assert response.answer is not None
    assert response.aggregation is not None
    winner = next(c for c in response.candidates if c.text == response.solution)
    assert [step.text for step in winner.steps] == split_steps(winner.text)
    assert winner.answer == response.answer
    for candidate in response.candidates:
        scores = [step.score for step in candidate.steps if step.score is not None]
        assert len(scores) == len(candidate.steps)
        assert candidate.score == aggregate(scores, candidate.outcome, response.aggregation)
    assert evidence(solve(three.orchestrator.url, strategy)) == evidence(response)


@searches
def test_each_step_costs_the_verifier_its_new_tokens_only(three: Stack, strategy: str) -> None:
    # A problem that nobody asked before, of which nothing is kept.
    problem = make_problem(level=5, seed=11).question
    usage = solve(three.orchestrator.url, strategy, problem=problem).usage
    assert usage.verifier_tokens_computed < usage.verifier_tokens / 4
    # The new tokens are what was drawn, the problem, and of each text its delimiters and its end.
    assert usage.verifier_tokens_computed < 1.5 * usage.completion_tokens + 200


def test_a_search_over_any_vllm_server_goes_through_the_header_of_the_answer(over_vllm: Process) -> None:
    response = solve(over_vllm.url, "dvts", search={"beam_width": 2, "expand": 2})
    assert response.answer is not None
    assert "\n\n# Answer\n\n" in (response.solution or "")


def test_a_stream_tells_the_solutions_and_the_command_line_the_same_answer(three: Stack) -> None:
    url = three.orchestrator.url
    body = {"problem": PROBLEM.question, "strategy": "beam", "sampling": SAMPLING, "stream": True}
    with httpx2.Client(timeout=300) as client, client.sse(f"{url}/v1/solve", method="POST", json=body) as events:
        told = [(event.event, json.loads(event.data)) for event in events]
    result = SolveResponse.model_validate_json(json.dumps(told[-1][1]))
    assert [data["index"] for name, data in told if name == "candidate"] == [c.index for c in result.candidates]
    arguments = ("--strategy", "beam", "--beam-width", "4", "--temperature", "1", "--max-tokens", "300", "--seed", "7")
    done = e2h("solve", PROBLEM.question, *arguments, "--url", url, "--json")
    assert done.returncode == 0, done.stderr
    assert evidence(SolveResponse.model_validate_json(done.stdout)) == evidence(result)

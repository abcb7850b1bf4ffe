"""Wire types are strict, closed, frozen and finite; each fault carries the type that becomes its code."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from services.core import contracts
from services.core.contracts import (
    MAX_NEW_TOKENS,
    MAX_SAMPLES,
    MAX_STEPS,
    GenerateRequest,
    ScoreRequest,
    SolveRequest,
    VoteRequest,
    Wire,
)
from services.core.seeds import MAX_SEED
from services.core.strategies import SolveStrategy
from services.core.voting import Strategy

SOLVE = {"problem": "What is 6 times 7?"}
BEAM = {**SOLVE, "strategy": "beam"}
GENERATE = {"problem": "What is 6 times 7?"}
SCORE = {"problem": "What is 6 times 7?", "solutions": [{"steps": ["It is 42."]}]}
VOTE = {"candidates": [{"answer": "42", "score": 0.9}]}


def _fault(model: type[BaseModel], body: dict[str, Any]) -> tuple[str, str]:
    """Type and place of the first fault that reading `body` finds."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(body))
    first = caught.value.errors(include_url=False)[0]
    return first["type"], ".".join(str(part) for part in first["loc"])


@pytest.mark.parametrize(
    ("model", "body"),
    [
        pytest.param(SolveRequest, SOLVE, id="solve"),
        pytest.param(SolveRequest, {**SOLVE, "n": 1, "sampling": {"temperature": 0.0}}, id="one greedy sample"),
        pytest.param(SolveRequest, {**SOLVE, "n": MAX_SAMPLES, "strategy": "best_of_n"}, id="as many as allowed"),
        pytest.param(SolveRequest, {**SOLVE, "sampling": {"seed": MAX_SEED, "top_p": 1}}, id="an int is a float"),
        pytest.param(GenerateRequest, {**GENERATE, "sampling": {"stop": ["\n"] * 16}}, id="generate"),
        pytest.param(GenerateRequest, {**GENERATE, "messages": [{"role": "user", "content": ""}]}, id="conversation"),
        pytest.param(GenerateRequest, {**GENERATE, "n": 2, "indices": [7, 3]}, id="two samples of many"),
        pytest.param(ScoreRequest, SCORE, id="score steps"),
        pytest.param(ScoreRequest, {**SCORE, "solutions": [{"text": "42"}]}, id="score text"),
        pytest.param(VoteRequest, VOTE, id="vote"),
        pytest.param(VoteRequest, {"candidates": [{}]}, id="a candidate may know nothing"),
    ],
)
def test_a_plain_request_is_read(model: type[BaseModel], body: dict[str, Any]) -> None:
    read = model.model_validate_json(json.dumps(body))
    assert model.model_validate_json(read.model_dump_json()) == read


@pytest.mark.parametrize(
    ("model", "body", "fault"),
    [
        pytest.param(SolveRequest, {}, ("missing", "problem"), id="no problem"),
        pytest.param(SolveRequest, {"problem": ""}, ("empty_problem", "problem"), id="an empty problem"),
        pytest.param(SolveRequest, {"problem": " \n\t"}, ("empty_problem", "problem"), id="a blank problem"),
        pytest.param(SolveRequest, {"problem": 42}, ("string_type", "problem"), id="a number for a problem"),
        pytest.param(SolveRequest, {**SOLVE, "n": True}, ("int_type", "n"), id="true is no number"),
        pytest.param(SolveRequest, {**SOLVE, "n": "4"}, ("int_type", "n"), id="a string is no number"),
        pytest.param(SolveRequest, {**SOLVE, "n": 4.0}, ("int_type", "n"), id="a float is no count"),
        pytest.param(SolveRequest, {**SOLVE, "n": 0}, ("greater_than_equal", "n"), id="no sample"),
        pytest.param(SolveRequest, {**SOLVE, "n": -1}, ("greater_than_equal", "n"), id="less than no sample"),
        pytest.param(SolveRequest, {**SOLVE, "n": 1025}, ("less_than_equal", "n"), id="too many samples"),
        pytest.param(SolveRequest, {**SOLVE, "strange": 1}, ("extra_forbidden", "strange"), id="an unknown field"),
        pytest.param(SolveRequest, {**SOLVE, "strategy": "beam!"}, ("enum", "strategy"), id="an unknown strategy"),
        pytest.param(
            SolveRequest,
            {**BEAM, "search": {"beam_width": 0}},
            ("greater_than_equal", "search.beam_width"),
            id="no beam",
        ),
        pytest.param(
            SolveRequest,
            {**BEAM, "search": {"beam_width": 33, "expand": 32}},
            ("too_long", "search"),
            id="too many continuations",
        ),
        pytest.param(
            SolveRequest,
            {**BEAM, "search": {"max_steps": 1025}},
            ("less_than_equal", "search.max_steps"),
            id="too deep",
        ),
        pytest.param(
            SolveRequest, {**BEAM, "search": {"width": 4}}, ("extra_forbidden", "search.width"), id="no such shape"
        ),
        pytest.param(SolveRequest, {**BEAM, "n": 8}, ("unsupported_parameter", "n"), id="samples of a search"),
        pytest.param(
            SolveRequest, {**SOLVE, "search": {}}, ("unsupported_parameter", "search"), id="a search of a vote"
        ),
        pytest.param(
            SolveRequest,
            {**BEAM, "early_stop": True},
            ("unsupported_parameter", "early_stop"),
            id="an early stop of a search",
        ),
        pytest.param(
            SolveRequest,
            {**BEAM, "aggregation": "outcome"},
            ("unsupported_parameter", "aggregation"),
            id="outcome of a part",
        ),
        pytest.param(
            SolveRequest,
            {**BEAM, "sampling": {"temperature": 0}},
            ("identical_samples", ""),
            id="a greedy search of many",
        ),
        pytest.param(
            VoteRequest, {**VOTE, "strategy": "beam"}, ("enum", "strategy"), id="a search among given candidates"
        ),
        pytest.param(SolveRequest, {**SOLVE, "aggregation": "none"}, ("enum", "aggregation"), id="unknown aggregation"),
        pytest.param(SolveRequest, {**SOLVE, "reference": " "}, ("empty", "reference"), id="a blank reference"),
        pytest.param(
            SolveRequest, {**SOLVE, "include_candidates": 1}, ("bool_type", "include_candidates"), id="1 is not true"
        ),
        pytest.param(
            GenerateRequest, {**GENERATE, "n": 3, "indices": [0, 1]}, ("sample_indices", ""), id="an index too few"
        ),
        pytest.param(
            GenerateRequest, {**GENERATE, "n": 2, "indices": [1, 1]}, ("sample_indices", ""), id="an index twice"
        ),
        pytest.param(GenerateRequest, {**GENERATE, "indices": []}, ("too_short", "indices"), id="no index"),
        pytest.param(
            GenerateRequest, {**GENERATE, "indices": [-1]}, ("greater_than_equal", "indices.0"), id="a negative index"
        ),
        pytest.param(
            GenerateRequest, {**GENERATE, "indices": [1024]}, ("less_than", "indices.0"), id="an index too large"
        ),
        pytest.param(
            SolveRequest,
            {**SOLVE, "n": 2, "sampling": {"temperature": 0}},
            ("identical_samples", ""),
            id="two greedy samples to solve",
        ),
        pytest.param(
            GenerateRequest,
            {**GENERATE, "n": 2, "sampling": {"temperature": 0.0}},
            ("identical_samples", ""),
            id="two greedy samples to generate",
        ),
        pytest.param(
            SolveRequest,
            {**SOLVE, "sampling": {"stop": ["x"]}},
            ("extra_forbidden", "sampling.stop"),
            id="stop is the generator's alone",
        ),
        pytest.param(
            GenerateRequest,
            {**GENERATE, "messages": [{"role": "tool", "content": "x"}]},
            ("literal_error", "messages.0.role"),
            id="an unknown role",
        ),
        pytest.param(ScoreRequest, {**SCORE, "solutions": []}, ("too_short", "solutions"), id="no solutions"),
        pytest.param(
            ScoreRequest, {**SCORE, "solutions": [{"steps": []}]}, ("too_short", "solutions.0.steps"), id="no steps"
        ),
        pytest.param(
            ScoreRequest,
            {**SCORE, "solutions": [{"steps": ["a"] * (MAX_STEPS + 1)}]},
            ("too_long", "solutions.0.steps"),
            id="too many steps",
        ),
        pytest.param(
            ScoreRequest,
            {**SCORE, "solutions": [{"steps": ["a", " "]}]},
            ("empty", "solutions.0.steps.1"),
            id="blank step",
        ),
        pytest.param(
            ScoreRequest, {**SCORE, "solutions": [{"text": "\n"}]}, ("empty", "solutions.0.text"), id="a blank text"
        ),
        pytest.param(
            ScoreRequest,
            {**SCORE, "solutions": [{"steps": ["a"], "text": "a"}]},
            ("invalid_body", "solutions.0"),
            id="steps and text",
        ),
        pytest.param(
            ScoreRequest, {**SCORE, "solutions": [{}]}, ("invalid_body", "solutions.0"), id="neither steps nor text"
        ),
        pytest.param(VoteRequest, {"candidates": []}, ("too_short", "candidates"), id="no candidates"),
        pytest.param(
            VoteRequest,
            {"candidates": [{"answer": "1", "text": "1"}]},
            ("invalid_body", "candidates.0"),
            id="answer and text",
        ),
        pytest.param(
            VoteRequest,
            {"candidates": [{"score": 0.5, "step_scores": [0.5]}]},
            ("invalid_body", "candidates.0"),
            id="score and step scores",
        ),
        pytest.param(
            VoteRequest,
            {"candidates": [{"score": 1.5}]},
            ("less_than_equal", "candidates.0.score"),
            id="a score over one",
        ),
        pytest.param(VoteRequest, {**VOTE, "n": 0}, ("greater_than_equal", "n"), id="the first none"),
    ],
)
def test_a_faulty_request_is_refused(model: type[BaseModel], body: dict[str, Any], fault: tuple[str, str]) -> None:
    assert _fault(model, body) == fault


@pytest.mark.parametrize(
    ("sampling", "place"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": MAX_NEW_TOKENS + 1}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"stop": [""]}, "stop.0"),
        ({"stop": ["x" * 257]}, "stop.0"),
        ({"stop": ["x"] * 17}, "stop"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_sampling_has_bounds(sampling: dict[str, Any], place: str) -> None:
    assert _fault(GenerateRequest, {**GENERATE, "sampling": sampling})[1] == f"sampling.{place}"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("model", "body"),
    [
        pytest.param(SolveRequest, '{"problem": "p", "sampling": {"temperature": %s}}', id="temperature"),
        pytest.param(VoteRequest, '{"candidates": [{"score": %s}]}', id="score"),
        pytest.param(VoteRequest, '{"candidates": [{"step_scores": [0.5, %s]}]}', id="step score"),
    ],
)
def test_numbers_are_finite(model: type[BaseModel], body: str, number: str) -> None:
    with pytest.raises(ValidationError):
        model.model_validate_json(body % number)


@pytest.mark.parametrize(
    ("fields", "continuations"),
    [
        pytest.param({}, 16, id="by default"),
        pytest.param({"search": None}, 16, id="null is the default"),
        pytest.param({"search": {"beam_width": 32, "expand": 32, "max_steps": 1024}}, 1024, id="as much as allowed"),
        pytest.param(
            {"search": {"beam_width": 1, "expand": 1}, "sampling": {"temperature": 0}}, 1, id="one greedy path"
        ),
    ],
)
@pytest.mark.parametrize("strategy", ["beam", "dvts"])
def test_a_search_is_read_and_sent_on_without_what_was_not_said(
    strategy: str, fields: dict[str, Any], continuations: int
) -> None:
    read = SolveRequest.model_validate_json(json.dumps({**SOLVE, "strategy": strategy, **fields}))
    assert read.most_candidates == continuations
    assert SolveRequest.model_validate_json(read.model_dump_json(exclude_unset=True)) == read


def test_a_request_cannot_be_changed() -> None:
    request = SolveRequest(problem="p")
    with pytest.raises(ValidationError):
        request.n = 9  # type: ignore[misc]


def test_an_enum_is_read_from_its_wire_name() -> None:
    assert (
        SolveRequest.model_validate_json('{"problem": "p", "strategy": "majority"}').strategy is SolveStrategy.MAJORITY
    )
    assert SolveRequest(problem="p", strategy=Strategy.MAJORITY).strategy is SolveStrategy.MAJORITY  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "model",
    [m for m in vars(contracts).values() if isinstance(m, type) and issubclass(m, Wire)],
    ids=lambda model: model.__name__,
)
def test_every_wire_type_is_frozen_strict_closed_and_finite(model: type[Wire]) -> None:
    config = model.model_config
    assert (config["frozen"], config["strict"], config["extra"], config["allow_inf_nan"]) == (
        True,
        True,
        "forbid",
        False,
    )

"""The start-up self-test of a reward model: refuse to serve rather than score wrong.

A built-in solution must give one finite probability a step; a packed batch must score each sequence as a plain forward
pass over that sequence alone does, which also tells a model that is not causal; and where the checkpoint carries golden
scores (`e2h.golden` in its config), they must come out again, which catches a tokenizer or a prompt format that is not
the one of training.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, ValidationError

from services.core.contracts import NonBlank, Probability, Problem, Wire
from services.core.errors import InvalidRequest, ModelLoadError
from services.verifier.families.base import Encoded
from services.verifier.model import RawScores, RewardModel

_PROBLEM = "What is 6 times 7?"
_STEPS = ["6 times 7 is 7 added six times.", "7 + 7 + 7 + 7 + 7 + 7 = 42.", "So 6 times 7 is 42.\n\n# Answer\n\n42"]
# float32 differs in the last digits between batch shapes; bfloat16 keeps about three digits.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


class Golden(Wire):
    """A solution with the scores that training's own code gave it, kept in a checkpoint's config."""

    problem: Problem
    steps: list[NonBlank] = Field(min_length=1)
    scores: list[Probability]
    outcome: Probability | None


def self_test(model: RewardModel) -> None:
    """Raises `ModelLoadError` with what is wrong."""
    tolerance = _TOLERANCE[next(model.body.parameters()).dtype]
    batch = [_encoded(model, _PROBLEM, [*_STEPS[:k], _STEPS[-1]]) for k in range(len(_STEPS))]
    together = model.score(batch)
    for encoded, scores in zip(batch, together, strict=True):
        _check_shape(encoded, scores)
        _check_close(
            scores, model.score_plainly(encoded), tolerance, "a batch scores otherwise than a plain forward pass"
        )
    golden = getattr(model.body.config, "e2h", {}).get("golden")
    if golden is not None:
        _check_golden(model, _read_golden(golden), tolerance)


def _encoded(model: RewardModel, problem: str, steps: Sequence[str]) -> Encoded:
    encoded = model.family.encode(problem, steps)
    if len(encoded.ids) > model.context_length:
        raise ModelLoadError(
            f"the self-test's solution has {len(encoded.ids)} tokens and the model's context {model.context_length}",
            "serve a model with room for a problem and its solution",
        )
    return encoded


def _check_shape(encoded: Encoded, scores: RawScores) -> None:
    if len(scores.steps) != len(encoded.step_rows) or (scores.outcome is None) != (encoded.outcome_row is None):
        raise ModelLoadError("the model does not give one score a step", "this is a bug of e2h; please report it")
    if not all(math.isfinite(p) for p in _flat(scores)):
        raise ModelLoadError("the model scores a plain solution as NaN", "the weights are damaged, or dtype overflows")


def _read_golden(entry: Any) -> Golden:
    try:
        return Golden.model_validate(entry)
    except ValidationError as error:
        raise ModelLoadError(
            "`e2h.golden` in the model's config is incomplete or no scored solution", "write it again, or remove it"
        ) from error


def _check_golden(model: RewardModel, golden: Golden, tolerance: float) -> None:
    message = "the model does not reproduce the golden scores of its config"
    try:
        encoded = _encoded(model, golden.problem, golden.steps)
    except InvalidRequest as error:
        raise ModelLoadError(message, f"the golden solution itself is refused: {error.message}") from error
    _check_close(model.score([encoded])[0], RawScores(tuple(golden.scores), golden.outcome), tolerance, message)


def _check_close(found: RawScores, expected: RawScores, tolerance: float, message: str) -> None:
    pairs = list(zip(_flat(found), _flat(expected), strict=False))
    same_length = len(_flat(found)) == len(_flat(expected))
    if not same_length or not all(abs(a - b) <= tolerance for a, b in pairs):
        raise ModelLoadError(
            message, "tokenizer, weights or prompt format do not belong together; save or download them again"
        )


def _flat(scores: RawScores) -> tuple[float, ...]:
    return scores.steps if scores.outcome is None else (*scores.steps, scores.outcome)

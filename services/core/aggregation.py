"""Many step scores in, one number out. Pure.

Scores are probabilities in [0, 1]; aggregation never sees logits. `prod` and `min` follow Lightman et al. (2023,
appendix F) and Sun et al. (2024, section 4.2); `last` is the score of the final step; `outcome` is the
end-of-solution score of an ORM or OPRM.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum


class Aggregation(StrEnum):
    """How the step scores of a solution become its score."""

    PROD = "prod"
    MIN = "min"
    MEAN = "mean"
    LAST = "last"
    OUTCOME = "outcome"


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


def _last(scores: Sequence[float]) -> float:
    return scores[-1]


_OVER_STEPS: dict[Aggregation, Callable[[Sequence[float]], float]] = {
    Aggregation.PROD: math.prod,
    Aggregation.MIN: min,
    Aggregation.MEAN: _mean,
    Aggregation.LAST: _last,
}


def aggregate(scores: Sequence[float], outcome: float | None, how: Aggregation) -> float | None:
    """The score of one solution, or None when it has none.

    None means "exclude this candidate": no step scores (or no outcome, for `outcome`), or a score that is not a
    finite probability. There is no sentinel value that could take part in a vote.
    """
    if how is Aggregation.OUTCOME:
        return outcome if outcome is not None and is_probability(outcome) else None
    if not scores or not all(is_probability(p) for p in scores):
        return None
    return float(_OVER_STEPS[how](scores))


def aggregations_of(kind: str) -> frozenset[Aggregation]:
    """What a verifier of this kind (prm, orm, oprm) can give."""
    outcome = frozenset({Aggregation.OUTCOME})
    return {"prm": frozenset(Aggregation) - outcome, "orm": outcome}.get(kind, frozenset(Aggregation))


def is_probability(value: float) -> bool:
    """Whether `value` is finite and in [0, 1]; false for NaN."""
    return 0.0 <= value <= 1.0


def first_error(scores: Sequence[float], threshold: float = 0.5) -> int | None:
    """The index of the first step whose score is under `threshold`, as ProcessBench asks; None when there is none."""
    return next((i for i, p in enumerate(scores) if p < threshold), None)

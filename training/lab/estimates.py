"""From scored samples to accuracies with intervals. Pure: numpy and ``services.core`` alone.

``maj@k`` and its kin are expectations over random k-subsets of the N samples of a problem; ``pass@k`` is the
unbiased estimator 1 - C(N-c, k) / C(N, k) (Chen et al., 2021). Intervals are 95 % percentile bootstraps over
problems; a difference of two rules is paired, problem by problem.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from services.core.equivalence import canonical_key
from services.core.voting import Candidate, Strategy, select

RESAMPLES = 2000
_class_of = lru_cache(maxsize=4096)(canonical_key)  # the same few answers come back for every subset
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its 95 % interval, all in [-1, 1]."""

    mean: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        """As the tables print it."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def bootstrap(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of one value per problem, with a percentile bootstrap over problems."""
    data: Floats = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(data), size=(RESAMPLES, len(data)))
    low, high = np.quantile(data[draws].mean(axis=1), [0.025, 0.975])
    return Estimate(float(data.mean()), float(low), float(high))


def pass_at(n: int, right: int, k: int) -> float:
    """The chance that k of n samples hold a right one, when ``right`` of the n are."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def subsets(n: int, k: int, draws: int, seed: str) -> list[list[int]]:
    """Seeded random k-subsets of range(n); the whole once when k = n."""
    if k >= n:
        return [list(range(n))]
    rng = random.Random(seed)
    return [sorted(rng.sample(range(n), k)) for _ in range(draws)]


def vote_accuracy(
    candidates: Sequence[Candidate], gold: str, strategy: Strategy, chosen: Sequence[Sequence[int]]
) -> float:
    """The share of the subsets in which the vote gives the right answer."""
    right = 0
    for subset in chosen:
        answer = select([candidates[i] for i in subset], strategy, _class_of).answer
        right += answer is not None and _class_of(answer) == _class_of(gold)
    return right / len(chosen)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """The chance that a positive scores above a negative, ties half; None without either."""
    if not positive or not negative:
        return None
    values: Floats = np.asarray([*positive, *negative], dtype=np.float64)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    m, n = len(positive), len(negative)
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))

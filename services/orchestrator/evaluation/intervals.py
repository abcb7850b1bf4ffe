"""Means over problems with their 95 % intervals. Pure: scipy.

The percentile bootstrap, not BCa: its ends stay within the range of the values and it is defined where all problems
agree, where BCa divides by a variance of zero. The mean of a bounded value is nearly unbiased and, over the hundreds of
problems of a test set, nearly symmetric, so that BCa's corrections would be small.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
from scipy.stats import bootstrap

from services.orchestrator.evaluation.arrays import Floats
from services.orchestrator.evaluation.findings import Estimate

Key = TypeVar("Key", bound=Hashable)
CONFIDENCE = 0.95
RESAMPLES = 2000
_MOST_VALUES = 2_000_000  # of one batch of resamples: 16 MB


def estimates(rows: Mapping[Key, Floats], seed: int = 0) -> dict[Key, Estimate]:
    """The mean of each row, which has one value a problem, with its interval.

    All rows are resampled alike. A difference of two rules is a row of differences, problem by problem: paired. One
    problem tells nothing of others: its interval is None.
    """
    if not rows:
        return {}
    values = np.stack(list(rows.values()))
    means = values.mean(axis=1)
    if values.shape[1] < 2:
        return {key: Estimate.of(float(mean)) for key, mean in zip(rows, means, strict=True)}
    found = bootstrap(
        (values,),
        np.mean,
        axis=1,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, _MOST_VALUES // values.size),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {
        key: Estimate.of(float(mean), float(low), float(high))
        for key, mean, low, high in zip(rows, means, found.low, found.high, strict=True)
    }

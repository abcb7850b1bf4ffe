"""Percentiles of recorded latencies with their uncertainty. Pure: numpy, seeded, no clock.

Every latency is kept, so percentiles are exact (docs/decisions/0013). Intervals are of a moving-block bootstrap:
latencies of neighbours in time resemble each other (a queue, a pause), and an interval that takes them for independent
draws promises far more than the run can keep (Künsch 1989; Efron and Tibshirani 1993, section 8.6).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.contracts.base import Wire

Array = NDArray[np.floating[Any]]
Statistic = Callable[[Array], Array]

QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)
_RESAMPLES = 400
_BLOCKS = 20
_LEVEL = 0.95
# Beyond a percentile there must be some requests before anything can be said of it.
_LEAST_BEYOND = 5


class Estimate(Wire):
    """A figure with its 95 % interval; without one where the run was too short to have any."""

    value: float
    low: float | None = None
    high: float | None = None


def quantiles(values: Array, at: Sequence[float]) -> Array:
    """The smallest values that at least these shares of `values` do not exceed, as HdrHistogram defines it."""
    return np.asarray(np.quantile(values, np.asarray(at), method="inverted_cdf"), dtype=np.float64)


def percentiles(latencies_ms: Array, seed: int = 0) -> dict[str, Estimate]:
    """p50 to max of `latencies_ms` [n], in order of time. Empty without latencies; the maximum has no interval."""
    if len(latencies_ms) == 0:
        return {}
    values = quantiles(latencies_ms, QUANTILES)
    low, high = interval(latencies_ms, lambda drawn: quantiles(drawn, QUANTILES), seed)
    return {
        name_of(q): _estimate(value, low[i], high[i], known=_is_bounded(len(latencies_ms), q))
        for i, (q, value) in enumerate(zip(QUANTILES, values, strict=True))
    }


def share(good: Sequence[bool], scale: float, seed: int = 0) -> Estimate:
    """`scale` times the share of `good` [n], in order of time."""
    values = np.asarray(good, dtype=np.float64)
    if len(values) == 0:
        return Estimate(value=0.0)
    low, high = interval(values, lambda drawn: np.asarray([drawn.mean()]), seed)
    return _estimate(scale * float(values.mean()), scale * low[0], scale * high[0], known=len(values) >= _BLOCKS)


def interval(values: Array, statistic: Statistic, seed: int) -> tuple[Array, Array]:
    """The 95 % interval of `statistic` ([n] to [k]) over resamples of blocks of neighbours."""
    draw = np.random.default_rng(seed)
    size = math.ceil(len(values) / _BLOCKS)
    offsets = np.arange(size)
    # Circular: the first and the last belong to as many blocks as any.
    starts = draw.integers(0, len(values), size=(_RESAMPLES, math.ceil(len(values) / size)))
    found = np.stack(
        [statistic(values[((row[:, None] + offsets) % len(values)).ravel()[: len(values)]]) for row in starts]
    )
    tail = (1 - _LEVEL) / 2
    return np.quantile(found, tail, axis=0), np.quantile(found, 1 - tail, axis=0)


def name_of(q: float) -> str:
    """p50, p99.9, max."""
    return "max" if q >= 1 else f"p{q * 100:g}"


def curve(latencies_ms: Array) -> list[tuple[float, float]]:
    """(share, milliseconds) at shares that come ever closer to one, for a plot; empty without latencies."""
    if len(latencies_ms) == 0:
        return []
    halvings = np.arange(0, math.log2(len(latencies_ms)) + 0.5, 0.5)
    shares = [*(1 - 0.5**halvings), 1.0]
    return list(zip(map(float, shares), map(float, quantiles(latencies_ms, shares)), strict=True))


def _is_bounded(count: int, q: float) -> bool:
    return q < 1 and count * (1 - q) >= _LEAST_BEYOND and count >= _BLOCKS


def _estimate(value: float, low: float, high: float, *, known: bool) -> Estimate:
    # The value lies within: what no resample reached is not thereby excluded.
    bounds = (min(float(low), float(value)), max(float(high), float(value))) if known else (None, None)
    return Estimate(value=float(value), low=bounds[0], high=bounds[1])

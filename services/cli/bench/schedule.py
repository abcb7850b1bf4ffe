"""When each request is due. Pure: seeded, no clock."""

import itertools
import math
import random
from collections.abc import Iterator
from enum import StrEnum


class Arrivals(StrEnum):
    """How requests come: independently of each other, as those of many users do, or evenly."""

    POISSON = "poisson"
    CONSTANT = "constant"


def arrival_times(arrivals: Arrivals, rate: float, duration_s: float, seed: int) -> list[float]:
    """Seconds after the start, ascending, all below `duration_s`; `rate` a second. The same seed gives the same times.

    A Poisson process has `rate * duration_s` arrivals only on average. Raises `ValueError` unless both are positive.
    """
    if not (rate > 0 and duration_s > 0 and math.isfinite(rate * duration_s)):
        raise ValueError("rate and duration must be positive")
    if arrivals is Arrivals.CONSTANT:
        # Divided, not added up: a thousandth of a second added a million times drifts.
        return [place / rate for place in range(math.ceil(rate * duration_s)) if place / rate < duration_s]
    return list(itertools.takewhile(lambda due: due < duration_s, _poisson(rate, seed)))


def _poisson(rate: float, seed: int) -> Iterator[float]:
    draw = random.Random(f"arrivals {seed}")  # noqa: S311 - load, not a secret
    due = 0.0
    while True:
        due += draw.expovariate(rate)
        yield due


def rising(lowest: float, steps_an_octave: int) -> Iterator[float]:
    """`lowest`, and each the same factor above the last, `steps_an_octave` of them to the double. Without end."""
    return (lowest * 2 ** (step / steps_an_octave) for step in itertools.count())

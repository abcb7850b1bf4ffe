"""Sets of real numbers: unions of intervals, kept disjoint, sorted and merged. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, total_ordering
from typing import Any

from services.core.equivalence import numeric
from services.core.equivalence.numeric import Value


@total_ordering
@dataclass(frozen=True, eq=False)
class End:
    """An end of an interval: a real number, or an infinity (`value` None, `sign` its side)."""

    value: Value | None
    sign: int = 0

    @cached_property
    def order(self) -> tuple[int, Any]:
        return (self.sign, 0) if self.value is None else (0, numeric.approximate(self.value))

    @property
    def key(self) -> str:
        return ("-" if self.sign < 0 else "") + "∞" if self.value is None else numeric.name_of(self.value)

    def __neg__(self) -> "End":
        return End(None, -self.sign) if self.value is None else End(-self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, End) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __lt__(self, other: "End") -> bool:
        return bool(self != other and self.order < other.order)


LOWEST, HIGHEST = End(None, -1), End(None, 1)


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, each closed or open. A point is closed at both of two equal ends."""

    low: End
    high: End
    low_closed: bool = False
    high_closed: bool = False

    @property
    def empty(self) -> bool:
        return self.high < self.low or (self.low == self.high and not (self.low_closed and self.high_closed))

    @property
    def key(self) -> str:
        return f"{'(['[self.low_closed]}{self.low.key}; {self.high.key}{')]'[self.high_closed]}"

    def meet(self, other: "Interval") -> "Interval":
        """What both hold."""
        low = max(self.low, other.low)
        high = min(self.high, other.high)
        return Interval(
            low,
            high,
            all(i.low_closed for i in (self, other) if i.low == low),
            all(i.high_closed for i in (self, other) if i.high == high),
        )


@dataclass(frozen=True)
class RealSet:
    """A union of intervals; make it with `RealSet.of`."""

    intervals: tuple[Interval, ...]

    @classmethod
    def of(cls, intervals: Iterable[Interval]) -> "RealSet":
        """Sorted, without empty ones, those that touch merged."""
        waiting = sorted((i for i in intervals if not i.empty), key=lambda i: (i.low, not i.low_closed))
        merged: list[Interval] = []
        for interval in waiting:
            if merged and _touch(merged[-1], interval):
                merged[-1] = _hull(merged[-1], interval)
            else:
                merged.append(interval)
        return cls(tuple(merged))

    @cached_property
    def key(self) -> str:
        return " u ".join(interval.key for interval in self.intervals) or "{}"

    def union(self, other: "RealSet") -> "RealSet":
        return RealSet.of([*self.intervals, *other.intervals])

    def intersection(self, other: "RealSet") -> "RealSet":
        return RealSet.of(a.meet(b) for a in self.intervals for b in other.intervals)

    def negated(self) -> "RealSet":
        """The negatives of its numbers."""
        return RealSet.of(Interval(-i.high, -i.low, i.high_closed, i.low_closed) for i in self.intervals)

    def complement(self) -> "RealSet":
        """The real numbers that it lacks."""
        gaps: list[Interval] = []
        low, closed = LOWEST, False
        for interval in self.intervals:
            gaps.append(Interval(low, interval.low, closed, not interval.low_closed))
            low, closed = interval.high, not interval.high_closed
        gaps.append(Interval(low, HIGHEST, closed, False))
        return RealSet.of(_bounded(gap) for gap in gaps)


def _bounded(interval: Interval) -> Interval:
    """An infinity belongs to no set of real numbers."""
    return Interval(
        interval.low,
        interval.high,
        interval.low_closed and interval.low != LOWEST,
        interval.high_closed and interval.high != HIGHEST,
    )


def _touch(a: Interval, b: Interval) -> bool:
    """Whether b, which begins no earlier, continues a without a gap."""
    return b.low < a.high or (b.low == a.high and (a.high_closed or b.low_closed))


def _hull(a: Interval, b: Interval) -> Interval:
    if a.high == b.high:
        return Interval(a.low, a.high, a.low_closed, a.high_closed or b.high_closed)
    last = a if b.high < a.high else b
    return Interval(a.low, last.high, a.low_closed, last.high_closed)


REALS = RealSet((Interval(LOWEST, HIGHEST),))


def point(value: Value) -> Interval:
    return Interval(End(value), End(value), True, True)

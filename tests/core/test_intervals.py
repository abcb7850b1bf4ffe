"""Sets of real numbers: merged, complemented and met as sets are."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.equivalence.intervals import HIGHEST, LOWEST, REALS, End, Interval, RealSet, point

ends = st.one_of(st.just(LOWEST), st.just(HIGHEST), st.integers(-5, 5).map(lambda n: End(Fraction(n))))
intervals = st.builds(Interval, ends, ends, st.booleans(), st.booleans()).map(
    lambda i: Interval(
        i.low, i.high, i.low_closed and i.low.value is not None, i.high_closed and i.high.value is not None
    )
)
sets = st.lists(intervals, max_size=5).map(RealSet.of)
halves = st.integers(-12, 12).map(lambda n: Fraction(n, 2))


def holds(reals: RealSet, number: Fraction) -> bool:
    return bool(reals.intersection(RealSet.of([point(number)])).intervals)


@given(sets, sets, halves)
def test_union_intersection_and_complement_are_those_of_logic(a: RealSet, b: RealSet, x: Fraction) -> None:
    assert holds(a.union(b), x) == (holds(a, x) or holds(b, x))
    assert holds(a.intersection(b), x) == (holds(a, x) and holds(b, x))
    assert holds(a.complement(), x) != holds(a, x)
    assert holds(a.negated(), x) == holds(a, -x)


@given(sets)
def test_a_set_has_one_key(a: RealSet) -> None:
    assert a.complement().complement().key == a.key
    assert a.negated().negated().key == a.key
    assert RealSet.of(reversed(a.intervals)).key == a.key
    assert a.union(a).key == a.intersection(a).key == a.key
    assert a.union(a.complement()).key == REALS.key


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        pytest.param([(0, 1, False, True), (1, 2, False, False)], "(0; 2)", id="a closed end joins an open one"),
        pytest.param([(0, 1, False, False), (1, 2, False, False)], "(0; 1) u (1; 2)", id="a hole stays"),
        pytest.param([(2, 2, True, True)], "[2; 2]", id="a point"),
        pytest.param([(2, 2, True, False)], "{}", id="no point"),
        pytest.param([(3, 1, True, True)], "{}", id="nothing"),
    ],
)
def test_touching_intervals_merge(parts: list[tuple[int, int, bool, bool]], key: str) -> None:
    made = [Interval(End(Fraction(a)), End(Fraction(b)), c, d) for a, b, c, d in parts]
    assert RealSet.of(made).key == key

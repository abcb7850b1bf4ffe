"""Many step scores, one number: the five ways, and what excludes a candidate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.aggregation import Aggregation, aggregate, first_error, is_probability

OVER_STEPS = [how for how in Aggregation if how is not Aggregation.OUTCOME]
probabilities = st.floats(0.0, 1.0)
anything = st.one_of(st.floats(), probabilities)
over_steps = pytest.mark.parametrize("how", OVER_STEPS)


@pytest.mark.parametrize(
    ("how", "score"),
    [
        pytest.param(Aggregation.PROD, 0.9 * 0.5 * 0.8, id="prod multiplies"),
        pytest.param(Aggregation.MIN, 0.5, id="min takes the lowest"),
        pytest.param(Aggregation.MEAN, 2.2 / 3, id="mean averages"),
        pytest.param(Aggregation.LAST, 0.8, id="last takes the last"),
        pytest.param(Aggregation.OUTCOME, 0.3, id="outcome takes the outcome"),
    ],
)
def test_each_way_makes_its_own_number(how: Aggregation, score: float) -> None:
    assert aggregate([0.9, 0.5, 0.8], 0.3, how) == pytest.approx(score)


@over_steps
def test_no_steps_have_no_score(how: Aggregation) -> None:
    assert aggregate([], 0.9, how) is None


@over_steps
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.1, 1.1, 5.0])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_value_that_is_no_probability_excludes_the_candidate(how: Aggregation, bad: float, place: int) -> None:
    scores = [0.9, 0.9]
    scores.insert(place, bad)
    assert aggregate(scores, None, how) is None


@pytest.mark.parametrize("outcome", [None, math.nan, math.inf, -1.0, 1.5])
def test_without_a_probable_outcome_there_is_no_outcome_score(outcome: float | None) -> None:
    assert aggregate([0.9], outcome, Aggregation.OUTCOME) is None


@given(st.lists(anything, max_size=6), st.none() | anything, st.sampled_from(Aggregation))
def test_a_score_is_a_probability_or_nothing(scores: list[float], outcome: float | None, how: Aggregation) -> None:
    score = aggregate(scores, outcome, how)
    assert score is None or 0.0 <= score <= 1.0


@given(st.lists(probabilities, min_size=1, max_size=50))
def test_the_ways_are_ordered_as_arithmetic_says(scores: list[float]) -> None:
    prod, low, mean = (aggregate(scores, None, how) for how in (Aggregation.PROD, Aggregation.MIN, Aggregation.MEAN))
    assert prod is not None
    assert low is not None
    assert mean is not None
    assert prod <= low
    assert low <= mean or math.isclose(low, mean)


@given(probabilities)
def test_of_a_single_step_every_way_gives_its_score(score: float) -> None:
    assert {aggregate([score], None, how) for how in OVER_STEPS} == {score}


@pytest.mark.parametrize(
    ("value", "is_one"),
    [(0.0, True), (1.0, True), (0.5, True), (-1e-9, False), (1.0 + 1e-9, False), (math.nan, False), (math.inf, False)],
)
def test_a_probability_is_finite_and_from_zero_to_one(value: float, is_one: bool) -> None:
    assert is_probability(value) is is_one


@pytest.mark.parametrize(
    ("scores", "place"),
    [
        pytest.param([0.9, 0.4, 0.1], 1, id="the first, not the worst"),
        pytest.param([0.9, 0.5], None, id="at the threshold is no error"),
        pytest.param([], None, id="no steps"),
        pytest.param([0.1], 0, id="the very first step"),
    ],
)
def test_the_first_error_is_the_first_step_under_the_threshold(scores: list[float], place: int | None) -> None:
    assert first_error(scores) == place


def test_the_threshold_of_an_error_can_be_moved() -> None:
    assert first_error([0.9, 0.7], threshold=0.8) == 1

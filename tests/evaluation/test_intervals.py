"""Intervals of means over problems: they cover, they are paired, and they never warn."""

import numpy as np

from services.orchestrator.evaluation.findings import Estimate
from services.orchestrator.evaluation.intervals import estimates


def test_about_95_in_100_intervals_hold_the_true_mean() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for trial in range(200):
        values = rng.binomial(8, 0.7, size=80) / 8
        (found,) = estimates({"x": values}, seed=trial).values()
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.7 <= found.high
    assert 0.90 <= held / 200 <= 0.985


def test_a_paired_difference_is_surer_than_its_sides() -> None:
    rng = np.random.default_rng(2)
    hardness = rng.random(100)
    better = np.clip(hardness + 0.05 + 0.02 * rng.standard_normal(100), 0, 1)
    found = estimates({"better": better, "base": hardness, "difference": better - hardness})
    difference = found["difference"]
    assert difference.mean == round(found["better"].mean - found["base"].mean, 6)
    assert difference.low is not None
    assert difference.low > 0  # though the two intervals overlap:
    assert found["better"].low is not None
    assert found["base"].high is not None
    assert found["better"].low < found["base"].high


def test_one_problem_has_no_interval_and_equal_ones_a_point() -> None:
    assert estimates({"x": np.array([0.25])}) == {"x": Estimate(mean=0.25, low=None, high=None)}
    assert estimates({"x": np.ones(5)}) == {"x": Estimate(mean=1.0, low=1.0, high=1.0)}
    assert estimates({}) == {}


def test_equal_seeds_give_equal_intervals_whatever_else_is_estimated() -> None:
    values, other = np.arange(20) / 20, np.ones(20)
    assert estimates({"x": values}, 4)["x"] == estimates({"o": other, "x": values}, 4)["x"]
    assert estimates({"x": values}, 4) != estimates({"x": values}, 5)

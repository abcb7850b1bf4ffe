"""A verifier's quality against counts by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.evaluation.quality import (
    LabelledSteps,
    auroc,
    best_threshold,
    calibration_error,
    first_errors,
    reliability,
    score_quality,
    step_auroc,
)
from tests.evaluation.made_up import arrays, sample


def test_auroc_counts_pairs_in_order_ties_half() -> None:
    # Right: 0.9, 0.5; wrong: 0.5, 0.1, 0.6. In order: 3 pairs of the first, 1 and a half of the second.
    scores, right = np.array([0.9, 0.5, 0.1, 0.5, 0.6]), np.array([True, False, False, True, False])
    assert auroc(scores, right) == pytest.approx(4.5 / 6)
    assert auroc(scores, np.ones(5, dtype=bool)) is None


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), st.booleans()), max_size=30))
def test_auroc_is_the_share_of_pairs(rows: list[tuple[float, bool]]) -> None:
    right, wrong = [s for s, r in rows if r], [s for s, r in rows if not r]
    found = auroc(np.array([s for s, _ in rows]), np.array([r for _, r in rows], dtype=bool))
    if not right or not wrong:
        assert found is None
        return
    won = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    assert found == pytest.approx(won / (len(right) * len(wrong)))


def test_calibration_error_weighs_bins_by_their_samples() -> None:
    bins = reliability(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert [(b.low, b.high, b.samples, b.right) for b in bins] == [(0.0, 0.1, 2, 0.5), (0.9, 1.0, 2, 1.0)]
    assert calibration_error(bins) == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)
    assert calibration_error([]) is None


def test_auroc_within_problems_does_not_reward_knowing_which_problem_is_easy() -> None:
    # Scores tell the easy problem from the hard one, and nothing within either.
    easy = [sample("1", True, 0.9), sample("1", True, 0.9), sample("2", False, 0.9)]
    hard = [sample("1", True, 0.1), sample("2", False, 0.1), sample("3", False, 0.1), sample("4", False)]
    found = score_quality([arrays(easy), arrays(hard)], "min", seed=0)
    assert found.auroc_pooled == pytest.approx((2 * 2 + 2 * 0.5 + 0.5 * 2) / 9, abs=1e-6)
    assert found.auroc_within is not None
    assert found.auroc_within.mean == 0.5
    assert (found.problems_with_both, found.samples) == (2, 6)  # the one without a score does not count


SOLUTIONS = [
    LabelledSteps((0.9, 0.2, 0.9), 1),  # located
    LabelledSteps((0.4, 0.2), 1),  # an earlier step is blamed
    LabelledSteps((0.9, 0.9), 0),  # not seen
    LabelledSteps(None, 0),  # not scored: not found
    LabelledSteps((0.9, 0.5), -1),  # right: the threshold itself is no error
    LabelledSteps((0.9, 0.1), -1),  # wrongly blamed
]


def test_f1_is_the_harmonic_mean_of_locating_errors_and_their_absence() -> None:
    found = first_errors(SOLUTIONS, 0.5)
    assert (found.erroneous, found.correct) == (1 / 4, 1 / 2)
    assert found.f1 == pytest.approx(2 * 0.25 * 0.5 / 0.75)
    assert first_errors(SOLUTIONS[:4], 0.5).f1 is None
    assert first_errors([SOLUTIONS[1], SOLUTIONS[5]], 0.5).f1 == 0.0


def test_steps_after_the_first_error_are_not_judged() -> None:
    # Right: 0.9 | 0.4 | 0.9 0.5 | 0.9 0.1; wrong: 0.2, 0.2, 0.9.
    right, wrong = [0.9, 0.4, 0.9, 0.5, 0.9, 0.1], [0.2, 0.2, 0.9]
    won = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    assert step_auroc(SOLUTIONS) == pytest.approx(won / 18)
    assert step_auroc([]) is None


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), min_size=1, max_size=4), st.integers(-1, 3)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_threshold_is_better_than_the_chosen_one(rows: list[tuple[list[float], int]]) -> None:
    solutions = [LabelledSteps(tuple(scores), min(label, len(scores) - 1)) for scores, label in rows]
    chosen = best_threshold(solutions)
    if chosen is None:
        assert first_errors(solutions, 0.5).f1 is None
        return
    best = first_errors(solutions, chosen).f1
    assert best is not None
    for threshold in np.linspace(0.0, 1.0, 21):
        assert (first_errors(solutions, float(threshold)).f1 or 0.0) <= best + 1e-12

"""Estimators against brute force over all subsets with the service's own vote, and the identities that hold."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.aggregation import Aggregation
from services.core.voting import Strategy
from services.orchestrator.evaluation.curves import count_votes, groups_of, rules_for
from services.orchestrator.evaluation.estimators import (
    Rule,
    accuracies,
    generator_tokens,
    is_exact,
    pass_at,
    verifier_tokens,
)
from services.orchestrator.evaluation.predictions import sizes_up_to
from services.orchestrator.evaluation.samples import ScoredSample
from tests.evaluation.made_up import arrays, brute_force, sample, voted_right

MAJORITY = Rule(Strategy.MAJORITY)
SCORED = [Rule(s, how) for s in (Strategy.WEIGHTED, Strategy.BEST_OF_N) for how in ("min", "outcome")]
RULES = [MAJORITY, *SCORED]
# Few values, so that ties are common, all dyadic, so that sums are exact in both.
SCORES = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0.0, 1.0, width=16))


@st.composite
def sampled(draw: st.DrawFn, least: int = 1, most: int = 7) -> list[ScoredSample]:
    """Samples of up to four classes in two spellings each, some without an answer, some without a score."""
    right = draw(st.sets(st.integers(0, 3), max_size=2))
    samples = []
    for _ in range(draw(st.integers(least, most))):
        number = draw(st.one_of(st.none(), st.integers(0, 3)))
        answer = None if number is None else draw(st.sampled_from([f"{number}", f"{number}.0"]))
        key = None if number is None else f"n:{number}"
        scores = {"score": draw(SCORES), "outcome": draw(SCORES)}
        samples.append(sample(answer, number in right, scores["score"], outcome=scores["outcome"], key=key))
    return samples


def estimated(samples: Sequence[ScoredSample], rules: Sequence[Rule], sizes: Sequence[int]) -> list[list[float]]:
    found: list[list[float]] = accuracies(arrays(samples), rules, sizes, draws=200, seed=0).tolist()
    return found


@given(sampled())
@settings(max_examples=150, deadline=None)
def test_every_rule_at_every_k_is_the_mean_over_all_subsets_of_the_services_vote(samples: list[ScoredSample]) -> None:
    sizes = range(1, len(samples) + 1)
    expected = [[brute_force(samples, rule, k) for k in sizes] for rule in RULES]
    assert estimated(samples, RULES, sizes) == pytest.approx(np.array(expected), abs=1e-12)


@given(sampled(least=14, most=40))
@settings(max_examples=60, deadline=None)
def test_all_samples_are_voted_on_as_the_service_does(samples: list[ScoredSample]) -> None:
    n = len(samples)
    expected = [float(voted_right(samples, rule, range(n))) for rule in RULES]
    assert [row[0] for row in estimated(samples, RULES, [n])] == pytest.approx(expected, abs=1e-12)


@given(sampled(most=9))
@settings(max_examples=60, deadline=None)
def test_one_sample_is_right_as_often_as_samples_are(samples: list[ScoredSample]) -> None:
    problem = arrays(samples)
    accuracy = float(problem.right.mean())
    assert pass_at(problem, 1) == pytest.approx(accuracy)
    assert estimated(samples, [MAJORITY], [1])[0][0] == pytest.approx(accuracy)


@given(sampled(most=9))
@settings(max_examples=60, deadline=None)
def test_best_of_n_with_an_oracle_for_a_verifier_is_pass_at_k(samples: list[ScoredSample]) -> None:
    knowing = [sample(s.answer, bool(s.correct), float(bool(s.correct)), key=s.key) for s in samples]
    sizes = sizes_up_to(len(samples))
    oracle = [pass_at(arrays(knowing), k) for k in sizes]
    assert estimated(knowing, [Rule(Strategy.BEST_OF_N, "min")], sizes)[0] == pytest.approx(oracle)


@given(sampled(most=20), st.sampled_from([0.125, 1.0]))
@settings(max_examples=60, deadline=None)
def test_weighing_all_alike_is_majority(samples: list[ScoredSample], weight: float) -> None:
    alike = [sample(s.answer, bool(s.correct), weight, key=s.key) for s in samples]
    majority, weighted = estimated(alike, [MAJORITY, Rule(Strategy.WEIGHTED, "min")], sizes_up_to(len(samples)))
    assert weighted == majority


@pytest.mark.parametrize(("n", "right", "k"), [(1, 1, 1), (5, 2, 2), (64, 3, 16), (64, 60, 8), (256, 0, 64)])
def test_pass_at_k_is_one_minus_the_chance_of_wrong_ones_alone(n: int, right: int, k: int) -> None:
    samples = [sample("r", True)] * right + [sample("w")] * (n - right)
    assert pass_at(arrays(samples), k) == pytest.approx(1 - math.comb(n - right, k) / math.comb(n, k))


def test_draws_come_near_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(5)
    samples = [
        sample(str(rng.integers(3)) if i % 5 else None, score=float(rng.random()), outcome=0.5, text=str(i))
        for i in range(14)
    ]
    samples = [sample(s.answer, s.answer == "1", s.scores[0], outcome=float(rng.random())) for s in samples]
    assert not is_exact(14, 8)
    found = accuracies(arrays(samples), RULES, [8], draws=4000, seed=1)[:, 0]
    expected = [brute_force(samples, rule, 8) for rule in RULES]
    assert found == pytest.approx(np.array(expected), abs=0.035)  # 4.4 standard errors of a coin


def test_draws_depend_on_the_problem_and_the_seed_alone() -> None:
    samples = [sample(str(i % 3), i % 3 == 0, i / 40) for i in range(40)]
    problems = [arrays(samples, name=f"p{i}", level=1 + i % 5) for i in range(4)]
    rules = rules_for([Aggregation.MIN], problems)
    votes = count_votes(problems, rules, draws=50, seed=3)
    backwards = count_votes(problems[::-1], rules, draws=50, seed=3)
    assert (votes.right == backwards.right[::-1]).all()
    assert (votes.right[0] != votes.right[1]).any()
    assert (votes.right != count_votes(problems, rules, draws=50, seed=4).right).any()


def test_classes_of_equal_scores_tie_in_whatever_order_they_came() -> None:
    # 0.1 + 0.2 + 0.3 is not 0.3 + 0.1 + 0.2 to the last bit; a tie goes to the lower index of the best one.
    scores = [("w", 0.1), ("r", 0.3), ("w", 0.2), ("w", 0.3), ("r", 0.1), ("r", 0.2)]
    samples = [sample(answer, answer == "r", score) for answer, score in scores]
    assert voted_right(samples, Rule(Strategy.WEIGHTED, "min"), range(6))
    assert estimated(samples, [Rule(Strategy.WEIGHTED, "min")], [6]) == [[1.0]]


def test_a_class_is_right_as_its_most_frequent_spelling_is() -> None:
    samples = [sample("10 cm", True, key="n"), sample("10", key="n"), sample("10", key="n"), sample("7", True)]
    assert arrays(samples).right.tolist() == [False, False, False, True]
    earliest = [sample("10 cm", True, key="n"), sample("10", key="n")]
    assert arrays(earliest).right.tolist() == [True, True]


def test_without_an_answer_there_is_nothing_right() -> None:
    samples = [sample(None), sample(None, score=0.5)]
    assert estimated(samples, RULES, [1, 2]) == [[0.0, 0.0]] * len(RULES)
    assert pass_at(arrays(samples), 2) == 0.0


def test_equal_texts_are_verified_once_and_sampled_each_time() -> None:
    texts = ["a", "a", "b"]
    problem = arrays([sample("1", score=0.5, text=text, tokens=10) for text in texts])
    assert generator_tokens(problem, 2) == pytest.approx(20)
    # Of the three pairs one holds "a" twice: 20 tokens; two hold both texts: 40.
    assert verifier_tokens(problem, 2) == pytest.approx((20 + 40 + 40) / 3)
    assert verifier_tokens(problem, 3) == pytest.approx(40)


def test_a_long_texts_likelihood_still_weighs() -> None:
    samples = [sample("w", logprob=-2000.0, tokens=100), sample("r", True, logprob=-1990.0, tokens=100)]
    problem = arrays(samples)
    rules = rules_for([], [problem])
    assert [rule.score for rule in rules] == [None, "likelihood", "likelihood_per_token"]
    assert accuracies(problem, rules, [2], 10, 0).tolist() == [[0.0], [1.0], [1.0]]
    assert rules_for([], [problem, arrays([sample("w")])]) == (MAJORITY,)


def test_groups_are_all_easy_hard_and_each_level_that_is_there() -> None:
    assert dict(groups_of([1, 4, None, 3])) == {
        "all": [0, 1, 2, 3],
        "easy": [0, 3],
        "hard": [1],
        "level 1": [0],
        "level 3": [3],
        "level 4": [1],
    }
    assert dict(groups_of([None, None])) == {"all": [0, 1]}

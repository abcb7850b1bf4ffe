"""Choosing among candidates: every strategy against its plain re-statement, ties, weights, exclusions, margins."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.equivalence import equivalent
from services.core.voting import Candidate, Selection, Strategy, select

SPELLINGS = ["1/2", "0.5", "\\frac12", "3", "3.0", "x", None]
every_strategy = pytest.mark.parametrize("strategy", list(Strategy))
# Scores with exact sums, so that ties are ties.
scores = st.none() | st.integers(0, 8).map(lambda eighths: eighths / 8)


@st.composite
def candidate_lists(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(0, 12))
    return [
        Candidate(index, draw(st.sampled_from(SPELLINGS)), draw(scores), draw(st.booleans())) for index in range(count)
    ]


def _voters(candidates: list[Candidate], strategy: Strategy) -> list[Candidate]:
    return [c for c in candidates if c.answer is not None and (c.score is not None or strategy is Strategy.MAJORITY)]


def _class_of(member: Candidate, voters: list[Candidate]) -> list[Candidate]:
    return [c for c in voters if equivalent(c.answer or "", member.answer or "")]


def _value(score: float | None) -> float:
    return -1.0 if score is None else score


def _strength(group: list[Candidate], strategy: Strategy) -> float:
    if strategy is Strategy.MAJORITY:
        return len(group)
    values = [_value(c.score) for c in group]
    return sum(values) if strategy is Strategy.WEIGHTED else max(values)


def _restated_winner(candidates: list[Candidate], strategy: Strategy) -> int | None:
    """The candidate to show, found by looking at every voter's class, as plainly as possible."""
    voters = _voters(candidates, strategy)
    ranked = [
        (-_strength(_class_of(c, voters), strategy), -max(_value(m.score) for m in _class_of(c, voters)), c.index)
        for c in voters
        if _value(c.score) == max(_value(m.score) for m in _class_of(c, voters))
    ]
    return min(ranked)[2] if ranked else None


@every_strategy
@given(candidates=candidate_lists())
def test_the_winner_is_the_one_of_the_plain_restatement(strategy: Strategy, candidates: list[Candidate]) -> None:
    assert select(candidates, strategy).index == _restated_winner(candidates, strategy)


@every_strategy
@given(candidates=candidate_lists(), rng=st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(strategy: Strategy, candidates: list[Candidate], rng: Random) -> None:
    arrived = rng.sample(candidates, len(candidates))
    assert select(arrived, strategy) == select(candidates, strategy)


@every_strategy
@given(candidates=candidate_lists())
def test_the_margin_is_a_share(strategy: Strategy, candidates: list[Candidate]) -> None:
    assert 0.0 <= select(candidates, strategy).margin <= 1.0


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3"]), st.floats(0.0, 1.0)), max_size=20))
def test_the_margin_is_a_share_for_any_scores(rows: list[tuple[str, float]]) -> None:
    candidates = [Candidate(i, answer, score) for i, (answer, score) in enumerate(rows)]
    assert all(0.0 <= select(candidates, strategy).margin <= 1.0 for strategy in Strategy)


@every_strategy
@given(candidates=candidate_lists())
def test_every_voter_is_in_exactly_one_class(strategy: Strategy, candidates: list[Candidate]) -> None:
    members = [m for c in select(candidates, strategy).classes for m in c.members]
    assert sorted(members) == [c.index for c in _voters(candidates, strategy)]


@given(candidate_lists())
def test_the_weights_of_all_classes_sum_to_the_scores_of_all_voters(candidates: list[Candidate]) -> None:
    classes = select(candidates, Strategy.WEIGHTED).classes
    total = math.fsum(c.score or 0.0 for c in candidates if c.answer is not None)
    assert math.fsum(c.weight for c in classes) == pytest.approx(total)


@given(candidate_lists())
def test_the_weights_of_a_majority_are_its_votes(candidates: list[Candidate]) -> None:
    assert all(c.weight == c.votes == len(c.members) for c in select(candidates, Strategy.MAJORITY).classes)


@every_strategy
@given(candidates=candidate_lists())
def test_who_cannot_vote_changes_nothing(strategy: Strategy, candidates: list[Candidate]) -> None:
    assert select(_voters(candidates, strategy), strategy) == select(candidates, strategy)


@every_strategy
def test_without_voters_there_is_no_answer(strategy: Strategy) -> None:
    nothing = select([Candidate(0, None, 0.9)], strategy)
    assert nothing == Selection(strategy, ())
    assert (nothing.answer, nothing.index, nothing.margin) == (None, None, 0.0)


@every_strategy
def test_an_unopposed_answer_wins_by_everything(strategy: Strategy) -> None:
    assert select([Candidate(0, "1", 0.5), Candidate(1, "1.0", 0.5)], strategy).margin == 1.0


THREE_STRATEGIES_THREE_WINNERS = [
    Candidate(0, "many", 0.1),
    Candidate(1, "many", 0.1),
    Candidate(2, "many", 0.1),
    Candidate(3, "heavy", 0.6),
    Candidate(4, "heavy", 0.6),
    Candidate(5, "best", 0.9),
]


@pytest.mark.parametrize(
    ("strategy", "answer", "margin"),
    [
        pytest.param(Strategy.MAJORITY, "many", (3 - 2) / 6, id="majority counts"),
        pytest.param(Strategy.WEIGHTED, "heavy", (1.2 - 0.9) / 2.4, id="weighted sums"),
        pytest.param(Strategy.BEST_OF_N, "best", (0.9 - 0.6) / 1.6, id="best_of_n looks at the best alone"),
    ],
)
def test_each_strategy_has_its_own_winner(strategy: Strategy, answer: str, margin: float) -> None:
    selection = select(THREE_STRATEGIES_THREE_WINNERS, strategy)
    assert selection.answer == answer
    assert selection.margin == pytest.approx(margin)


@pytest.mark.parametrize(
    ("candidates", "strategy", "index"),
    [
        pytest.param(
            [Candidate(0, "1", 0.5), Candidate(1, "2", 0.5)], Strategy.WEIGHTED, 0, id="equal in all: the lower index"
        ),
        pytest.param(
            [Candidate(0, "1", 0.25), Candidate(1, "1", 0.5), Candidate(2, "2", 0.75)],
            Strategy.WEIGHTED,
            2,
            id="equal weight: the higher best score",
        ),
        pytest.param(
            [Candidate(0, "1", 0.2), Candidate(1, "2", 0.3)], Strategy.MAJORITY, 1, id="equal votes: the higher score"
        ),
        pytest.param(
            [Candidate(0, "1", None), Candidate(1, "2", 0.0)],
            Strategy.MAJORITY,
            1,
            id="equal votes: a scored one before an unscored one",
        ),
        pytest.param(
            [Candidate(0, "1", 0.9), Candidate(1, "1", 0.9)],
            Strategy.BEST_OF_N,
            0,
            id="within a class: the lower index",
        ),
    ],
)
def test_a_tie_goes_to_the_higher_score_then_to_the_lower_index(
    candidates: list[Candidate], strategy: Strategy, index: int
) -> None:
    assert select(candidates, strategy).index == index


@pytest.mark.parametrize(
    ("candidate", "strategy", "reason"),
    [
        pytest.param(Candidate(0, "1", 0.5), Strategy.WEIGHTED, None, id="answered and scored"),
        pytest.param(Candidate(0, None, 0.5), Strategy.WEIGHTED, "no_answer", id="no answer"),
        pytest.param(Candidate(0, None, 0.5, truncated=True), Strategy.WEIGHTED, "truncated", id="cut before it"),
        pytest.param(Candidate(0, "1", None), Strategy.WEIGHTED, "not_scored", id="no score"),
        pytest.param(Candidate(0, "1", None), Strategy.BEST_OF_N, "not_scored", id="no score for best_of_n"),
        pytest.param(Candidate(0, "1", None), Strategy.MAJORITY, None, id="a majority needs no score"),
        pytest.param(Candidate(0, "1", 0.0), Strategy.WEIGHTED, None, id="zero is a score"),
    ],
)
def test_a_candidate_says_why_it_does_not_vote(candidate: Candidate, strategy: Strategy, reason: str | None) -> None:
    assert candidate.exclusion(strategy) == reason


@pytest.mark.parametrize(
    ("spellings", "named"),
    [
        pytest.param(["0.5", "1/2", "1/2"], "1/2", id="the most frequent"),
        pytest.param(["0.5", "1/2"], "0.5", id="of equals the earliest"),
    ],
)
def test_a_class_is_named_by_its_most_frequent_spelling(spellings: list[str], named: str) -> None:
    candidates = [Candidate(i, spelling, 0.5) for i, spelling in enumerate(spellings)]
    assert select(candidates, Strategy.WEIGHTED).answer == named


def test_the_classes_are_those_of_the_given_key() -> None:
    candidates = [Candidate(0, "a1", 0.5), Candidate(1, "a2", 0.5), Candidate(2, "b", 0.9)]
    assert select(candidates, Strategy.WEIGHTED, key=lambda answer: answer[0]).classes[0].members == (0, 1)

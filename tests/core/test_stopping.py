"""Early stop: lossless never changes the winning class, for any order of arrival; confident against plain sums."""

import math
from collections.abc import Sequence
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.equivalence import canonical_key
from services.core.stopping import CONFIDENCE, EarlyStop, can_stop_early, is_settled, may_stop, probability_ahead
from services.core.voting import Candidate, Selection, Strategy, select

VOTES = [Strategy.MAJORITY, Strategy.WEIGHTED]
# "1/2" and "0.5" are one class; None has no vote.
ANSWERS = ["1/2", "0.5", "3", "x", None]


def majority(*votes: str) -> Selection:
    return select([Candidate(i, answer, None) for i, answer in enumerate(votes)], Strategy.MAJORITY)


def weighted(*votes: tuple[str, float]) -> Selection:
    return select([Candidate(i, answer, score) for i, (answer, score) in enumerate(votes)], Strategy.WEIGHTED)


@st.composite
def arrivals(draw: st.DrawFn) -> list[Candidate]:
    """All samples of a run, in the order of their arrival."""
    n = draw(st.integers(1, 24))
    # Few answers, one of them frequent: runs that can stop are what is looked for.
    frequent = draw(st.sampled_from(ANSWERS[:4]))
    answer = st.one_of(st.just(frequent), st.just(frequent), st.sampled_from(ANSWERS))
    score = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0]), st.none())
    candidates = [Candidate(i, draw(answer), draw(score)) for i in range(n)]
    return draw(st.permutations(candidates))


def stops_at(run: Sequence[Candidate], strategy: Strategy, rule: EarlyStop) -> int | None:
    """After how many arrivals the rule first allows to stop."""
    for count in range(1, len(run)):
        selection = select(run[:count], strategy)
        if may_stop(rule, selection, len(run), [c.index for c in run[:count]]):
            return count
    return None


def winning_class(run: Sequence[Candidate], strategy: Strategy) -> str | None:
    answer = select(run, strategy).answer
    return None if answer is None else canonical_key(answer)


@pytest.mark.parametrize("strategy", VOTES)
@given(run=arrivals())
def test_a_lossless_stop_never_changes_the_winning_class(strategy: Strategy, run: list[Candidate]) -> None:
    if strategy is Strategy.MAJORITY:
        run = [Candidate(c.index, c.answer, None) for c in run]
    count = stops_at(run, strategy, EarlyStop.LOSSLESS)
    if count is not None:
        for used in range(count, len(run) + 1):  # samples that come in while the others are being cancelled do no harm
            assert winning_class(run[:used], strategy) == winning_class(run, strategy)


@pytest.mark.parametrize("strategy", VOTES)
def test_a_lossless_stop_holds_against_every_continuation(strategy: Strategy) -> None:
    random = Random(3)
    stopped = 0
    for _ in range(300):
        n = random.randint(2, 9)
        weights: list[float | None] = [None] if strategy is Strategy.MAJORITY else [0.25, 0.5, 1.0]
        run = [Candidate(i, random.choice("aab"), random.choice(weights)) for i in range(n)]
        random.shuffle(run)
        count = stops_at(run, strategy, EarlyStop.LOSSLESS)
        if count is None:
            continue
        stopped += 1
        rest = [c.index for c in run[count:]]
        for rival in "abc":
            full = [*run[:count], *(Candidate(i, rival, weights[-1]) for i in rest)]
            assert select(full, strategy).answer == select(run[:count], strategy).answer
    assert stopped > 50


@pytest.mark.parametrize(
    ("votes", "n", "stops"),
    [
        pytest.param("aaa", 5, True, id="two remain for a lead of three"),
        pytest.param("aab", 5, False, id="two remain for a lead of one"),
        pytest.param("aa", 4, True, id="a tie that the lower index wins"),
        pytest.param("baa", 4, False, id="a tie that the lower index of the rival wins"),
        pytest.param("a", 2, True, id="a new answer could only draw level, behind"),
        pytest.param("", 4, False, id="nothing has come"),
        pytest.param("aaa", 3, False, id="nothing remains to be saved"),
    ],
)
def test_a_majority_is_settled_when_nobody_can_pass_the_leader(votes: str, n: int, stops: bool) -> None:
    assert may_stop(EarlyStop.LOSSLESS, majority(*votes), n, range(len(votes))) is stops


def test_a_tie_is_not_won_against_a_remaining_sample_of_a_lower_index() -> None:
    run = [Candidate(i, "a", None) for i in (1, 2)]
    selection = select(run, Strategy.MAJORITY)
    assert not may_stop(EarlyStop.LOSSLESS, selection, 4, [1, 2])  # samples 0 and 3 may both say "b"
    assert is_settled(selection, remaining=2, lowest_open=3)


@pytest.mark.parametrize(
    ("votes", "remaining", "settled"),
    [
        pytest.param([("a", 1.0), ("a", 0.5)], 1, True, id="a lead of more than what remains"),
        pytest.param([("a", 1.0), ("a", 0.5), ("b", 0.5)], 1, False, id="a lead of as much as what remains"),
        pytest.param([("a", 0.1)] * 9, 1, False, id="many votes of little weight"),
    ],
)
def test_a_weighted_vote_is_settled_by_weight(votes: list[tuple[str, float]], remaining: int, settled: bool) -> None:
    assert is_settled(weighted(*votes), remaining, lowest_open=len(votes)) is settled


def test_samples_without_an_answer_use_up_what_remains() -> None:
    run = [Candidate(0, "a", None), Candidate(1, None, None), Candidate(2, None, None)]
    assert may_stop(EarlyStop.LOSSLESS, select(run, Strategy.MAJORITY), 4, [0, 1, 2])


@pytest.mark.parametrize("rule", list(EarlyStop))
def test_best_of_n_never_stops_early(rule: EarlyStop) -> None:
    selection = select([Candidate(i, "a", 1.0) for i in range(9)], Strategy.BEST_OF_N)
    assert not may_stop(rule, selection, 10, range(9))
    assert [s for s in Strategy if can_stop_early(s)] == [Strategy.WEIGHTED, Strategy.MAJORITY]


def beta_binomial(x: int, h: int, a: int, b: int) -> Fraction:
    """Exact, for whole parameters."""

    def beta(p: int, q: int) -> Fraction:
        return Fraction(math.factorial(p - 1) * math.factorial(q - 1), math.factorial(p + q - 1))

    return math.comb(h, x) * beta(x + a, h - x + b) / beta(a, b)


@pytest.mark.parametrize(
    ("votes", "remaining"),
    [pytest.param("a", 63, id="one"), pytest.param("aaab", 12, id="three to one"), pytest.param("aaabbc", 6, id="six")],
)
def test_the_probability_is_that_of_the_beta_binomial(votes: str, remaining: int) -> None:
    leader = votes.count("a")
    overtaken = Fraction(0)
    for rival in [votes.count(c) for c in sorted(set(votes) - {"a"})] + [0]:
        levels = [x for x in range(remaining + 1) if rival + x >= leader + remaining - x]
        overtaken += sum((beta_binomial(x, remaining, rival + 1, leader + 1) for x in levels), Fraction(0))
    expected = float(max(Fraction(0), 1 - overtaken))
    assert probability_ahead(majority(*votes), remaining, len(votes)) == pytest.approx(expected)


def test_with_many_samples_to_come_it_is_the_criterion_of_adaptive_consistency() -> None:
    # P(p > 1/2) of a Beta(v + 1, 1) is 1 - 2^-(v + 1); the only rival is an answer that nobody gave.
    for votes in range(1, 7):
        ahead = probability_ahead(majority(*"a" * votes), 100_000, votes)
        assert ahead == pytest.approx(1 - 0.5 ** (votes + 1), abs=1e-3)


@pytest.mark.parametrize("strategy", VOTES)
@given(run=arrivals())
def test_what_is_settled_is_certain(strategy: Strategy, run: list[Candidate]) -> None:
    run = [Candidate(c.index, c.answer, None if strategy is Strategy.MAJORITY else c.score) for c in run]
    selection = select(run, strategy)
    if selection.winner is None:
        return
    for remaining in range(1, 8):
        ahead = probability_ahead(selection, remaining, len(run))
        assert 0.0 <= ahead <= 1.0
        if is_settled(selection, remaining, lowest_open=len(run)) and strategy is Strategy.WEIGHTED:
            assert ahead == 1.0


def test_a_vote_of_low_scores_is_not_confident_soon() -> None:
    # Twenty samples of score 0.01 are a fifth of a vote.
    assert probability_ahead(weighted(*[("a", 0.01)] * 20), 44, 20) < CONFIDENCE
    assert probability_ahead(weighted(*[("a", 0.9)] * 20), 44, 20) > CONFIDENCE

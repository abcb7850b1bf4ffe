"""Which partial solutions go on: pure values, no port."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.contracts import Completion, FinishReason, SearchOptions
from services.core.strategies import SolveStrategy
from services.orchestrator.search.tree import Branch, Tree, merged, plant

# Few values, so that there are ties; None is unscored.
values = st.sampled_from([None, 0.0, 0.25, 0.5, 1.0])
ends: st.SearchStrategy[FinishReason | None] = st.sampled_from([None, None, None, "stop", "length", "cancelled"])


@st.composite
def steps(draw: st.DrawFn) -> list[Branch]:
    """The distinct branches of a step, with how often each was drawn."""
    found = draw(st.lists(st.tuples(values, ends, st.integers(0, 2)), max_size=12))
    return [
        Branch(text=str(i), value=value, finish_reason=end, copies=[Branch(text=str(i)) for _ in range(copies)])
        for i, (value, end, copies) in enumerate(found)
    ]


def completion(text: str, stop: str | None = "\n\n", reason: FinishReason = "stop") -> Completion:
    return Completion(index=0, text=text, tokens=3, finish_reason=reason, logprob=None, seed=5, stop_reason=stop)


@given(steps(), st.integers(1, 5), st.booleans())
def test_a_tree_keeps_at_most_its_places_of_what_is_open(branches: list[Branch], places: int, scored: bool) -> None:
    tree = Tree(0, places)
    pruned = tree.take(branches, scored=scored)
    assert len(tree.beam) <= tree.places <= places
    assert all(b.open for b in [*tree.beam, *pruned])
    able = {b.text for b in branches if b.open and (b.value is not None or not scored)}
    assert {b.text for b in tree.beam} | {b.text for b in pruned} == able
    assert not {b.text for b in tree.beam} & {b.text for b in pruned}


@given(steps(), st.integers(1, 5))
def test_nothing_that_is_pruned_is_better_than_what_goes_on(branches: list[Branch], places: int) -> None:
    tree = Tree(0, places)
    pruned = tree.take(branches, scored=True)
    worst = min((b.value or 0.0 for b in tree.beam), default=1.0)
    assert all((b.value or 0.0) <= worst for b in pruned if tree.beam)
    assert tree.beam == sorted(tree.beam, key=lambda b: -(b.value or 0.0))


@given(steps(), st.integers(1, 5))
def test_a_finished_one_among_the_best_takes_its_place_with_it(branches: list[Branch], places: int) -> None:
    tree = Tree(0, places)
    tree.take(branches, scored=True)
    able = [b for b in branches if (b.open or b.finished) and b.value is not None]
    assert len(tree.beam) + (places - tree.places) == min(places, len(able))


@given(steps())
def test_a_tree_of_one_place_is_over_when_its_best_continuation_is_finished(branches: list[Branch]) -> None:
    tree = Tree(0, 1)
    tree.take(branches, scored=True)
    able = [b for b in branches if (b.open or b.finished) and b.value is not None]
    best = max(able, key=lambda b: (b.value or 0.0, len(b.copies)), default=None)  # the first of equals
    assert tree.beam == ([best] if best is not None and best.open else [])


@given(steps(), st.integers(1, 5), st.randoms())
def test_the_order_of_the_continuations_decides_between_equals_only(
    branches: list[Branch], places: int, rng: Random
) -> None:
    branches = [b for b in branches if b.open]
    shuffled = list(branches)
    rng.shuffle(shuffled)
    first, second = Tree(0, places), Tree(0, places)
    first.take(branches, scored=True)
    second.take(shuffled, scored=True)
    worth = [[(b.value, len(b.copies)) for b in tree.beam] for tree in (first, second)]
    assert worth[0] == worth[1]


def test_of_equal_scores_what_was_drawn_more_often_goes_on() -> None:
    often = Branch(text="often", value=0.5, copies=[Branch(text="often")])
    tree = Tree(0, 1)
    tree.take([Branch(text="once", value=0.5), often], scored=True)
    assert tree.beam == [often]


def test_without_scores_what_was_drawn_most_often_goes_on() -> None:
    often = Branch(text="often", copies=[Branch(text="often")])
    tree = Tree(0, 1)
    tree.take([Branch(text="once", value=0.9), often], scored=False)
    assert tree.beam == [often]


def test_what_says_the_same_is_one_branch() -> None:
    a, b, c, d = Branch(text="a"), Branch(text="b"), Branch(text="a"), Branch(text="a", finish_reason="stop")
    assert merged([a, b, c, d]) == [a, b, d]
    assert (a.copies, b.copies, d.copies) == ([c], [], [])


@pytest.mark.parametrize(
    ("parents", "places", "shares"),
    [
        pytest.param(1, 4, [16], id="the first step draws as many as any other"),
        pytest.param(4, 4, [4, 4, 4, 4], id="each parent has its own"),
        pytest.param(3, 4, [5, 5, 5], id="a place that is not taken is shared"),
        pytest.param(1, 1, [4], id="one tree of many"),
    ],
)
def test_a_step_draws_the_same_number_however_many_parents_there_are(
    parents: int, places: int, shares: list[int]
) -> None:
    tree = Tree(0, places, [Branch(text=str(i)) for i in range(parents)])
    assert [n for _, _, n in tree.shares(4)] == shares


def test_beam_is_one_tree_and_dvts_are_many() -> None:
    shape = SearchOptions(beam_width=3)
    assert [(t.number, t.places, len(t.beam)) for t in plant(SolveStrategy.BEAM, shape)] == [(0, 3, 1)]
    assert [(t.number, t.places) for t in plant(SolveStrategy.DVTS, shape)] == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize(
    ("drawn", "text", "ended"),
    [
        pytest.param(completion(" two\n"), "one\n\ntwo", None, id="a step"),
        pytest.param(completion("two", stop=None), "one\n\ntwo", "stop", id="the model ended"),
        pytest.param(completion("tw", stop=None, reason="length"), "one\n\ntw", "length", id="cut in a step"),
        pytest.param(completion("", reason="cancelled"), "one", "cancelled", id="stopped by the engine"),
        pytest.param(completion("\n"), "one", "stop", id="another blank line at once"),
        pytest.param(completion("# Answer"), "one\n\n# Answer", None, id="the header of the answer"),
    ],
)
def test_a_branch_grows_by_a_step(drawn: Completion, text: str, ended: str | None) -> None:
    grown = Branch(text="one", tokens=4).grown(drawn)
    assert (grown.text, grown.tokens, grown.seed, grown.finish_reason) == (text, 7, 5, ended)
    assert grown.awaits_answer == text.endswith("# Answer")


def test_behind_the_header_the_answer_is_the_end_whatever_stopped_it() -> None:
    grown = Branch(text="one\n\n# Answer").grown(completion("42"))
    assert (grown.text, grown.finish_reason) == ("one\n\n# Answer\n\n42", "stop")


def test_what_is_to_be_continued_ends_in_a_blank_line() -> None:
    assert (Branch().prefix, Branch(text="one").prefix) == ("", "one\n\n")

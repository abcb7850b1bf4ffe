"""Which waiting solutions go next: within budget, problems together, the urgent first, none twice, none forgotten."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.batching import TrieTokens, Waiting, batches_of, take_batch
from services.verifier.trie import key_of

NOW = 1000.0


def item(*ids: int, group: str = "p", due: float = math.inf, background: bool = False) -> Waiting:
    return Waiting(key_of(ids), group, due, background)


def solution(length: int, name: int, **fields: object) -> Waiting:
    """`length` tokens that no other solution shares."""
    return item(*([name] * length), **fields)  # type: ignore[arg-type]


def tokens_of(items: list[Waiting]) -> int:
    tokens = TrieTokens()
    for one in items:
        tokens.add(one.key)
    return tokens.total


waiting = st.lists(
    st.builds(
        lambda ids, group, due, background: item(*ids, group=group, due=NOW + due, background=background),
        st.lists(st.integers(1, 3), min_size=1, max_size=30),
        st.sampled_from("pqr"),
        st.floats(-10, 10),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
)
budgets = st.integers(1, 100)


@given(waiting, budgets)
def test_a_batch_fits_the_budget_unless_it_is_one_oversize_solution(items: list[Waiting], budget: int) -> None:
    taken = take_batch(items, NOW, budget, budget)
    assert len(taken) == 1 or tokens_of([items[place] for place in taken]) <= budget


@given(waiting, budgets)
def test_everything_goes_in_the_end_and_nothing_twice(items: list[Waiting], budget: int) -> None:
    rounds, total = 0, len(items)
    gone = 0
    while items:
        taken = take_batch(items, NOW, budget, budget)
        assert len(set(taken)) == len(taken) > 0
        gone += len(taken)
        items = [one for place, one in enumerate(items) if place not in taken]
        rounds += 1
    assert gone == total
    assert rounds <= total


@given(waiting, budgets)
def test_all_go_once_in_batches_that_fit(items: list[Waiting], budget: int) -> None:
    keys = [one.key for one in items]
    batches = batches_of(keys, budget)
    assert sorted(place for batch in batches for place in batch) == list(range(len(keys)))
    assert all(len(batch) == 1 or tokens_of([items[place] for place in batch]) <= budget for batch in batches)


@given(waiting)
def test_with_room_for_all_a_whole_class_goes(items: list[Waiting]) -> None:
    yielding = [one.background and one.due > NOW for one in items]
    expected = [place for place, yields in enumerate(yielding) if yields == all(yielding)]
    assert sorted(take_batch(items, NOW, 10_000, 10_000)) == expected


@pytest.mark.parametrize(
    ("items", "budget", "taken"),
    [
        pytest.param([], 100, [], id="nothing waits"),
        pytest.param([solution(500, 1)], 100, [0], id="a lone oversize solution still goes"),
        pytest.param([solution(500, 1), solution(10, 2)], 100, [0], id="an oversize solution goes alone"),
        pytest.param([solution(9, 1), solution(9, 2), solution(9, 3)], 18, [0, 1], id="of equals the older"),
        pytest.param(
            [solution(10, 1, group="p"), solution(10, 2, group="q"), solution(10, 3, group="p")],
            20,
            [0, 2],
            id="a problem's solutions stay together",
        ),
        pytest.param(
            [solution(10, 1, group="p"), solution(10, 2, group="q", due=NOW + 1)], 10, [1], id="the more urgent problem"
        ),
        pytest.param(
            [solution(10, 1, group="p", background=True), solution(10, 2, group="q")],
            100,
            [1],
            id="interactive first, and alone",
        ),
        pytest.param(
            [solution(10, 1, due=NOW - 1, background=True), solution(10, 2, group="q")],
            100,
            [0, 1],
            id="overdue background work is as good as interactive",
        ),
        pytest.param(
            [item(1, 1, 1, 1, 2), item(1, 1, 1, 1, 3), item(1, 1, 1, 1, 4)],
            7,
            [0, 1, 2],
            id="a shared prefix counts once",
        ),
        pytest.param(
            [solution(10, 1, background=True), solution(10, 2, background=True)],
            100,
            [0],
            id="background runs in small",
        ),
    ],
)
def test_the_batch_is_the_one_that_a_person_would_take(items: list[Waiting], budget: int, taken: list[int]) -> None:
    assert take_batch(items, NOW, budget, background_budget=15) == taken

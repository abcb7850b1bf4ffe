"""Which waiting solutions go next: the oldest always, within budget, none twice, none forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.batching import padded_tokens, take_batch

waiting = st.lists(st.integers(1, 100), min_size=1, max_size=30)
budgets = st.integers(1, 500)


@given(waiting, budgets)
def test_the_oldest_always_goes(lengths: list[int], budget: int) -> None:
    assert 0 in take_batch(lengths, budget)


@given(waiting, budgets)
def test_a_batch_fits_the_budget_unless_it_is_one_oversize_solution(lengths: list[int], budget: int) -> None:
    taken = take_batch(lengths, budget)
    assert len(taken) == 1 or padded_tokens([lengths[place] for place in taken]) <= budget


@given(waiting, budgets)
def test_nothing_goes_twice(lengths: list[int], budget: int) -> None:
    taken = take_batch(lengths, budget)
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(range(len(lengths)))


@given(waiting, budgets)
def test_everything_goes_in_the_end(lengths: list[int], budget: int) -> None:
    rounds = 0
    while lengths:
        taken = set(take_batch(lengths, budget))
        lengths = [length for place, length in enumerate(lengths) if place not in taken]
        rounds += 1
        assert rounds <= 30


@given(waiting)
def test_with_room_for_all_all_go(lengths: list[int]) -> None:
    assert take_batch(lengths, padded_tokens(lengths)) == list(range(len(lengths)))


@given(waiting, budgets)
def test_no_other_run_of_lengths_with_the_oldest_would_be_larger(lengths: list[int], budget: int) -> None:
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    runs = [order[a:b] for a in range(len(order)) for b in range(a + 1, len(order) + 1) if 0 in order[a:b]]
    fitting = [run for run in runs if padded_tokens([lengths[p] for p in run]) <= budget]
    assert len(take_batch(lengths, budget)) == max((len(run) for run in fitting), default=1)


@pytest.mark.parametrize(
    ("lengths", "budget", "taken"),
    [
        pytest.param([], 100, [], id="nothing waits"),
        pytest.param([500], 100, [0], id="a lone oversize solution still goes"),
        pytest.param([500, 10], 100, [0], id="an oversize solution goes alone"),
        pytest.param([10, 500, 10], 100, [0, 2], id="an oversize solution does not hold up the others"),
        pytest.param([10, 90, 11, 12], 48, [0, 2, 3], id="with the oldest go its nearest in length"),
        pytest.param([10, 10, 10], 20, [0, 1], id="of equals the older"),
    ],
)
def test_the_batch_is_the_one_that_a_person_would_take(lengths: list[int], budget: int, taken: list[int]) -> None:
    assert take_batch(lengths, budget) == taken

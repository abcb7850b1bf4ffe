"""The parts of routing that decide, without a socket and on a clock of their own."""

from collections import Counter
from random import Random

import pytest

from services.orchestrator.routing.balancing import choose
from services.orchestrator.routing.breaker import Breaker
from services.orchestrator.routing.retrying import RetryBudget

# --- balancing -------------------------------------------------------------------------------------------------------


def balanced(requests: int, replicas: int, keys: int | None) -> list[int]:
    """Tokens at each replica after `requests` of one token that never end; `keys` problems in turn, or none."""
    loads, rng = dict.fromkeys(range(replicas), 0), Random(0)
    for place in range(requests):
        key = None if keys is None else f"problem {place % keys}"
        loads[choose(loads, key, 1, rng)] += 1
    return list(loads.values())


@pytest.mark.parametrize("replicas", [2, 3, 8])
def test_without_a_key_two_choices_keep_loads_together(replicas: int) -> None:
    loads = balanced(1000, replicas, keys=None)
    assert max(loads) - min(loads) <= 5


def test_a_problem_stays_at_its_replica_while_that_has_little_more_to_do() -> None:
    home = choose({0: 0, 1: 0, 2: 0}, "p", 0, Random())
    idle = dict.fromkeys(range(3), 100)
    assert {choose({**idle, home: load}, "p", 50, Random()) for load in (0, 100, 175)} == {home}
    assert choose({**idle, home: 176}, "p", 50, Random()) != home


def test_a_problem_that_moves_always_moves_to_the_same_second_replica() -> None:
    idle = dict.fromkeys(range(8), 0)
    home = choose(idle, "p", 0, Random())
    second = choose({**idle, home: 10}, "p", 0, Random())
    assert {choose({**idle, home: load}, "p", 0, Random()) for load in range(1, 50)} == {second}


def test_problems_spread_over_replicas() -> None:
    homes = Counter(choose(dict.fromkeys(range(4), 0), f"p{k}", 0, Random()) for k in range(400))
    assert set(homes) == {0, 1, 2, 3}
    assert min(homes.values()) > 60


def test_a_replica_that_goes_takes_only_its_own_problems_along() -> None:
    four = dict.fromkeys(range(4), 0)
    three = {k: v for k, v in four.items() if k != 2}
    before = {f"p{k}": choose(four, f"p{k}", 0, Random()) for k in range(200)}
    after = {key: choose(three, key, 0, Random()) for key in before}
    assert {key for key in before if before[key] != after[key]} == {key for key in before if before[key] == 2}


def test_even_one_problem_does_not_overload_its_replica() -> None:
    loads = balanced(1000, 2, keys=1)
    assert max(loads) <= 1.25 * min(loads) + 2


@pytest.mark.parametrize("key", ["p", None])
def test_a_lone_replica_takes_everything(key: str | None) -> None:
    assert choose({3: 10**9}, key, 0, Random()) == 3


def test_any_text_has_a_replica() -> None:
    assert choose({0: 0, 1: 0}, "\N{GREEK SMALL LETTER PI} \x00 " * 1000, 0, Random()) in (0, 1)


# --- retries ---------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spent(budget: RetryBudget, wanted: int) -> int:
    return sum(budget.spend() for _ in range(wanted))


def test_three_retries_need_no_traffic() -> None:
    assert spent(RetryBudget(Clock()), 10) == 3


def test_a_tenth_of_the_traffic_may_be_retried() -> None:
    budget = RetryBudget(Clock())
    for _ in range(500):
        budget.earn()
    assert spent(budget, 1000) in (52, 53)  # and the three; sums of tenths are not exact


def test_when_all_fail_upstream_sees_a_tenth_more_and_no_storm() -> None:
    budget, retries = RetryBudget(Clock()), 0
    for _ in range(10_000):
        budget.earn()
        retries += spent(budget, 3)
    assert retries <= 1003


def test_what_is_saved_up_has_a_bound() -> None:
    budget = RetryBudget(Clock())
    for _ in range(100_000):
        budget.earn()
    assert spent(budget, 1000) == 103


def test_the_reserve_comes_back_with_time_and_no_further() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    assert spent(budget, 10) == 3
    clock.now = 3.5
    assert spent(budget, 10) == 1
    clock.now = 1000.0
    assert spent(budget, 10) == 3


# --- breaker ---------------------------------------------------------------------------------------------------------


def told(breaker: Breaker, outcomes: str) -> str:
    """The state after `outcomes`: + for an answer, - for a failure."""
    for outcome in outcomes:
        breaker.succeeded() if outcome == "+" else breaker.failed()
    return breaker.state


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        pytest.param("----", "closed", id="four in a row"),
        pytest.param("-----", "open", id="five in a row"),
        pytest.param("----+----", "closed", id="not in a row"),
        pytest.param("+-" * 9 + "+", "closed", id="half, but of fewer than twenty"),
        pytest.param("+-" * 10, "open", id="half of twenty"),
        pytest.param("++-" * 20, "closed", id="a third"),
        pytest.param("-" * 4 + "+" * 30 + "+-" * 9, "closed", id="old failures are forgotten"),
        pytest.param("-----+++", "open", id="late answers change nothing"),
    ],
)
def test_the_breaker_opens_on_failures(outcomes: str, state: str) -> None:
    assert told(Breaker(1.0), outcomes) == state


def test_it_closes_after_a_probe_and_counts_anew() -> None:
    breaker = Breaker(1.0)
    told(breaker, "-----")
    breaker.probe()
    assert breaker.state == "half_open"
    assert told(breaker, "+-") == "half_open"
    breaker.mend()
    assert told(breaker, "----") == "closed"
    assert told(breaker, "-") == "open"


def test_its_rests_grow_until_an_answer_comes() -> None:
    breaker, rests = Breaker(1.0), []
    for _ in range(5):
        breaker.trip()
        rests.append(breaker.rest_s)
        breaker.probe()
    assert rests == [1, 2, 4, 5, 5]
    breaker.mend()
    told(breaker, "+-----")
    assert breaker.rest_s == 1

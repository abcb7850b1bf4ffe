"""Whose request goes next: shares in tokens, classes, bounds. The engine ends what it was given first."""

from collections import Counter, deque
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.turns import QUANTUM, Bounds, Turns, Waiting
from services.runtime.context import Priority

WIDE = Bounds(total=10**9, batch=10**9, tenant=10**9)


def turns_of(requests: Iterable[Waiting], bounds: Bounds) -> Turns:
    turns = Turns(bounds)
    for request in requests:
        turns.join(request)
    return turns


def one(tenant: str, tokens: int = 100, priority: Priority = "interactive") -> Waiting:
    return Waiting(tenant, priority, tokens)


def served(turns: Turns) -> list[Waiting]:
    """All in the order in which they are let in, each ended when the engine's turn comes to it."""
    order: list[Waiting] = []
    running: deque[Waiting] = deque()
    while True:
        while (request := turns.next()) is not None:
            order.append(request)
            running.append(request)
        if not running:
            return order
        ended = running.popleft()
        turns.give_back(ended, ended.tokens, ended.tokens)


costs = st.integers(1, 8 * QUANTUM)
requests = st.lists(
    st.builds(Waiting, st.sampled_from("abc"), st.sampled_from(["interactive", "batch"]), costs), max_size=40
)
bounds = st.builds(
    lambda total, batch, tenant: Bounds(total, min(batch, total), min(tenant, total)),
    *[st.integers(1, 20 * QUANTUM)] * 3,
)


@given(requests, bounds)
def test_nobody_starves_and_each_goes_once_and_first_come_first_within_a_tenant(
    asked: list[Waiting], given_bounds: Bounds
) -> None:
    order = served(turns_of(asked, given_bounds))
    assert Counter(order) == Counter(asked)
    for line in {(each.tenant, each.priority) for each in asked}:
        own = [each for each in asked if (each.tenant, each.priority) == line]
        assert [each for each in order if (each.tenant, each.priority) == line] == own


@given(requests, bounds)
def test_no_bound_is_passed_but_by_what_goes_alone(asked: list[Waiting], given_bounds: Bounds) -> None:
    turns, running = turns_of(asked, given_bounds), deque[Waiting]()
    while True:
        while (request := turns.next()) is not None:
            held = sum(each.tokens for each in running)
            own = sum(each.tokens for each in running if each.tenant == request.tenant)
            assert not held or held + request.tokens <= given_bounds.of(request.priority)
            assert not own or own + request.tokens <= given_bounds.tenant
            running.append(request)
            assert turns.in_flight == held + request.tokens
        if not running:
            break
        ended = running.popleft()
        turns.give_back(ended, ended.tokens, ended.tokens)
    assert turns.in_flight == 0


@given(st.lists(costs, min_size=1, max_size=40), st.lists(costs, min_size=1, max_size=40))
def test_two_who_both_have_work_are_served_equally_but_for_a_quantum_and_two_requests(
    first: list[int], second: list[int]
) -> None:
    """The bound of deficit round robin, at every moment until one of them has nothing left that waits."""
    order = served(turns_of([*(one("a", c) for c in first), *(one("b", c) for c in second)], WIDE))
    left = {"a": len(first), "b": len(second)}
    tokens = Counter(a=0, b=0)
    for request in order:
        tokens[request.tenant] += request.tokens
        left[request.tenant] -= 1
        if not left[request.tenant]:
            break
        assert abs(tokens["a"] - tokens["b"]) <= QUANTUM + 2 * max(*first, *second)


@given(requests, st.data())
def test_who_leaves_is_not_served_and_leaves_no_trace(asked: list[Waiting], data: st.DataObject) -> None:
    gone = [each for each in asked if data.draw(st.booleans())]
    turns = turns_of(asked, WIDE)
    for each in gone:
        turns.leave(each)
    stayed = [each for each in asked if each not in gone]
    assert Counter(served(turns)) == Counter(stayed)
    assert turns.in_flight == 0
    assert (turns.count("interactive"), turns.count("batch")) == (0, 0)


def test_ten_times_as_many_requests_get_no_more_tokens() -> None:
    order = served(
        turns_of([*(one("many") for _ in range(1000)), *(one("few") for _ in range(100))], Bounds(400, 400, 400))
    )
    while_both_wait = order[: 1 + max(i for i, each in enumerate(order) if each.tenant == "few")]
    tenants = Counter(each.tenant for each in while_both_wait)
    assert 0.8 <= tenants["many"] / tenants["few"] <= 1.25


def test_shares_are_of_tokens_and_not_of_requests() -> None:
    large, small = [one("large", 10 * QUANTUM) for _ in range(20)], [one("small", QUANTUM) for _ in range(200)]
    order = served(turns_of([*large, *small], WIDE))
    tokens = Counter[str]()
    for each in order[:110]:
        tokens[each.tenant] += each.tokens
    assert tokens["large"] / tokens["small"] == pytest.approx(1.0, abs=0.1)


def test_what_was_reserved_and_not_used_does_not_count() -> None:
    """Both use as much of each request; one asks for ten times as much."""
    turns = turns_of(
        [*(one("careful", 1000) for _ in range(300)), *(one("careless", 10_000) for _ in range(300))], WIDE
    )
    tenants = Counter[str]()
    for _ in range(200):
        request = turns.next()
        assert request is not None
        tenants[request.tenant] += 1
        turns.give_back(request, request.tokens, 1000)
    assert tenants["careful"] / tenants["careless"] == pytest.approx(1.0, abs=0.15)


def test_interactive_goes_before_batch_whoever_came_first() -> None:
    order = served(
        turns_of([*(one("a", priority="batch") for _ in range(3)), one("a"), one("b")], Bounds(100, 100, 100))
    )
    assert [each.priority for each in order] == ["interactive"] * 2 + ["batch"] * 3


def test_batch_leaves_room_for_who_comes() -> None:
    turns = turns_of((one("a", priority="batch") for _ in range(9)), Bounds(total=800, batch=400, tenant=800))
    while turns.next() is not None:
        pass
    assert turns.in_flight == 400
    turns.join(one("b", 300))
    assert turns.next() is not None


def test_a_tenant_at_its_bound_lets_others_pass() -> None:
    turns = turns_of([one("a"), one("a"), one("a"), one("b")], Bounds(total=400, batch=400, tenant=200))
    assert [request.tenant for request in iter(turns.next, None)] == ["a", "a", "b"]


def test_a_choice_takes_no_longer_for_a_huge_request() -> None:
    """Rounds are counted and not walked: a trillion of them would not end."""
    turns = turns_of([one("a", 2**50), one("b", 2**50 + QUANTUM)], Bounds(2**60, 2**60, 2**60))
    assert [request.tenant for request in iter(turns.next, None)] == ["a", "b"]


def test_what_is_ahead_of_a_newcomer_is_its_own_and_as_much_of_others() -> None:
    turns = turns_of([one("a", 100), *(one("a", 100) for _ in range(50)), one("b", 300)], Bounds(100, 100, 100))
    assert turns.next() is not None
    # In flight 100; before it go its own 300, as much of a's, and itself, of which 100 may be in flight.
    assert turns.ahead_of(one("b", 100)) == 100 + (300 + 100) + 400 - 100
    assert turns.ahead_of(one("c", 100, "batch")) == 100 + 100 + 5000 + 300 - 100
    assert Turns(WIDE).ahead_of(one("a")) == 0

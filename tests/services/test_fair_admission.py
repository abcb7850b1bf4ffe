"""Who waits for a turn and who is refused, on a clock that stands until it is moved; and the routes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from services.core.contracts import SolveRequest
from services.core.errors import DeadlineExceeded, Overloaded
from services.orchestrator.admission import Admission, FairSolver
from services.orchestrator.api.solve import solve_router
from services.orchestrator.metrics import AdmissionMetrics, SolveMetrics
from services.orchestrator.settings import AdmissionSettings
from services.orchestrator.solver import Solver
from services.runtime import context
from services.runtime.app import Lifecycle
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, solution
from tests.serving import eventually, serving_app

pytestmark = pytest.mark.timeout(20)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """An admission with a bound of 100 tokens, and whoever is in."""

    def __init__(self, **settings: object) -> None:
        self.registry, self.clock = CollectorRegistry(), Clock()
        made = AdmissionSettings.model_validate(
            {"max_tokens_in_flight": 100, "tenant_share": 1.0, "batch_share": 1.0, **settings}
        )
        self.admission = Admission(made, AdmissionMetrics(self.registry), self.clock)
        self.let_in: list[str] = []
        self._leaving: dict[str, asyncio.Event] = {}

    async def come(self, name: str, tokens: int = 100, tenant: str = "one", budget_s: float | None = None) -> None:
        """Wait for the turn, and stay until told to leave."""
        context.set_tenant(tenant)
        if budget_s is not None:
            context.set_budget(budget_s)
        self._leaving[name] = asyncio.Event()
        async with self.admission.entered(tokens):
            self.let_in.append(name)
            await self._leaving[name].wait()

    def start(self, name: str, tokens: int = 100, tenant: str = "one") -> "asyncio.Task[None]":
        return asyncio.create_task(self.come(name, tokens, tenant))

    async def leave(self, name: str, after_s: float = 1.0) -> None:
        self.clock.now += after_s
        self._leaving[name].set()
        await settled()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def nothing_left(self) -> bool:
        waiting = [self.metric("e2h_admission_waiting", priority=each) for each in ("interactive", "batch")]
        return [*waiting, self.metric("e2h_admission_tokens_in_flight")] == [0, 0, 0]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_finds_room_goes_at_once_and_who_does_not_goes_when_there_is() -> None:
    desk = Desk()
    tasks = [desk.start("a"), desk.start("b")]
    await settled()
    assert desk.let_in == ["a"]
    assert desk.metric("e2h_admission_waiting", priority="interactive") == 1
    await desk.leave("a")
    assert desk.let_in == ["a", "b"]
    await desk.leave("b")
    await asyncio.gather(*tasks)
    assert desk.nothing_left()


async def test_a_waiter_that_leaves_is_forgotten_and_lets_the_next_pass() -> None:
    desk = Desk()
    tasks = {name: desk.start(name, tokens) for name, tokens in (("a", 60), ("large", 100), ("small", 40))}
    await settled()
    assert desk.let_in == ["a"]
    tasks["large"].cancel()
    await settled()
    assert desk.let_in == ["a", "small"]
    tasks["a"].cancel()
    tasks["small"].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert desk.nothing_left()


async def test_a_waiter_that_is_let_in_and_leaves_in_the_same_moment_gives_its_room_back() -> None:
    desk = Desk()
    tasks = [desk.start("a"), desk.start("b"), desk.start("c")]
    await settled()
    tasks[0].cancel()
    await asyncio.sleep(0)  # a's room goes to b, whose task has not run yet
    tasks[1].cancel()
    await settled()
    assert desk.let_in == ["a", "c"]
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert desk.nothing_left()


async def test_a_wait_ends_with_the_time_budget() -> None:
    desk = Desk()
    first = desk.start("a")
    await settled()
    with pytest.raises(DeadlineExceeded):
        await asyncio.create_task(desk.come("b", budget_s=0.05))
    await desk.leave("a")
    await first
    assert desk.nothing_left()


async def test_a_wait_that_becomes_too_long_is_refused() -> None:
    desk = Desk(max_wait_s=0.05)
    first = desk.start("a")
    await settled()
    with pytest.raises(Overloaded):
        await desk.come("b")
    assert desk.metric("e2h_admission_refused_total", priority="interactive", reason="wait") == 1
    await desk.leave("a")
    await first
    assert desk.nothing_left()


async def test_a_wait_that_will_be_too_long_is_refused_at_once_with_the_prediction() -> None:
    desk = Desk(max_wait_s=3.5)
    tasks = [desk.start("first")]
    await settled()
    await desk.leave("first", after_s=1.0)  # 100 tokens a second
    tasks += [desk.start(name) for name in ("running", "waiting", "another", "last")]
    await settled()
    with pytest.raises(Overloaded) as refused:
        await desk.come("d")
    assert refused.value.retry_after_s == pytest.approx(4.0)
    # Another tenant's turn comes sooner: it does not wait behind all of the first one's.
    tasks.append(desk.start("e", tenant="two"))
    await settled()
    assert not tasks[-1].done()
    with pytest.raises(Overloaded):
        await asyncio.create_task(desk.come("hasty", tenant="three", budget_s=1.0))
    assert desk.metric("e2h_admission_refused_total", priority="interactive", reason="budget") == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert desk.nothing_left()


async def test_so_many_of_a_tenant_may_wait_and_others_all_the_same() -> None:
    desk = Desk(max_waiting=2)
    tasks = [desk.start(name) for name in "abc"]
    await settled()
    with pytest.raises(Overloaded):
        await desk.come("d")
    assert desk.metric("e2h_admission_refused_total", priority="interactive", reason="full") == 1
    tasks.append(desk.start("e", tenant="two"))
    await settled()
    assert desk.metric("e2h_admission_waiting", priority="interactive") == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert desk.nothing_left()


# --- around a solver -------------------------------------------------------------------------------------------------


def fair(generator: FakeGenerator, most: int, **settings: object) -> tuple[FairSolver, CollectorRegistry]:
    registry = CollectorRegistry()
    made = AdmissionSettings.model_validate({"max_tokens_in_flight": most, "tenant_share": 1.0, **settings})
    solver = Solver(generator, FakeVerifier(), InlineGrader(), SolveMetrics(registry))
    return FairSolver(solver, Admission(made, AdmissionMetrics(registry))), registry


def asked(n: int = 2) -> SolveRequest:
    return SolveRequest.model_validate({"problem": "p", "n": n, "sampling": {"max_tokens": 10}})


async def test_room_is_given_back_sample_by_sample() -> None:
    held = asyncio.Event()
    generator = FakeGenerator([solution("1"), solution("2")], holds={1: held})
    solver, registry = fair(generator, most=20)
    solving = [asyncio.create_task(solver.solve(asked(n))) for n in (2, 1)]
    assert await eventually(lambda: generator.delivered == 2)  # the second one's, while the first still holds ten
    assert (registry.get_sample_value("e2h_admission_tokens_in_flight") or 0) <= 20
    held.set()
    assert [(await each).answer for each in solving] == ["1", "1"]
    assert registry.get_sample_value("e2h_admission_tokens_in_flight") == 0


async def test_a_solve_that_fails_gives_its_room_back() -> None:
    solver, registry = fair(FakeGenerator([solution("1")], failure=Overloaded("full")), most=20)
    for _ in range(2):
        with pytest.raises(Overloaded):
            await solver.solve(asked())
    assert registry.get_sample_value("e2h_admission_tokens_in_flight") == 0


@asynccontextmanager
async def client(solver: FairSolver) -> AsyncIterator[httpx2.AsyncClient]:
    app = serving_app([solve_router(solver, InlineGrader())], Lifecycle())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://t") as asking:
        yield asking


async def test_a_refusal_is_a_429_that_tells_when_to_come_again_and_asks_no_engine() -> None:
    generator = FakeGenerator([solution("1")], holds={0: asyncio.Event()})
    solver, _ = fair(generator, most=10, max_waiting=1)
    async with client(solver) as asking:
        body = asked(1).model_dump(mode="json")
        tasks = [asyncio.create_task(asking.post("/v1/solve", json=body)) for _ in range(2)]
        assert await eventually(lambda: len(generator.requests) == 1)
        await settled()
        for refused_body in (body, {**body, "stream": True}):
            refused = await asking.post("/v1/solve", json=refused_body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        assert len(generator.requests) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""Several generators or verifiers as one: with fakes in this process, and over real sockets that break."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.contracts import (
    Completion,
    GenerateDone,
    GenerateRequest,
    ScoreRequest,
    ScoreResponse,
    ScoreTimings,
    SolveRequest,
)
from services.core.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    Draining,
    E2HError,
    NotReady,
    Overloaded,
    UpstreamContract,
    UpstreamUnavailable,
)
from services.core.ports import Generator, Verifier
from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.transport import upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.routing import Policy, ReplicatedGenerator, ReplicatedVerifier, RoutingMetrics
from services.orchestrator.routing.balancing import choose
from services.orchestrator.solver import Solver
from services.runtime import context
from services.runtime.app import Lifecycle
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, solution, unreachable
from tests.serving import eventually, generator_app, served, verifier_app

pytestmark = pytest.mark.timeout(60)

HASTY = Policy(probe_after_s=0.05, probe_timeout_s=0.1, rest_s=0.05, slack_tokens=8192)
PATIENT = Policy(probe_after_s=0.05, probe_timeout_s=0.1, rest_s=600.0, slack_tokens=8192)
SCORE = ScoreRequest.model_validate({"problem": "p", "solutions": [{"text": "a"}]})
FAULTS = [unreachable(), NotReady("loading"), Draining("stopping"), UpstreamContract("nonsense")]


@dataclass
class Hanging(FakeVerifier):
    """Like a stopped process while `hold` is not set: says nothing, not even that it is not ready."""

    hold: asyncio.Event | None = field(default_factory=asyncio.Event)

    async def ready(self) -> str | None:
        assert self.hold is not None
        await self.hold.wait()
        return None


@dataclass
class HangingGenerator(FakeGenerator):
    """A generator that hangs at its held samples, and does not answer probes."""

    async def ready(self) -> str | None:
        await asyncio.Event().wait()
        return None


@contextlib.asynccontextmanager
async def verifiers(
    *replicas: Verifier, policy: Policy = PATIENT, registry: CollectorRegistry | None = None
) -> AsyncIterator[ReplicatedVerifier]:
    routed = ReplicatedVerifier(replicas, RoutingMetrics(registry or CollectorRegistry()), policy)
    yield routed
    await routed.close()


@contextlib.asynccontextmanager
async def generators(
    *replicas: Generator, policy: Policy = PATIENT, registry: CollectorRegistry | None = None
) -> AsyncIterator[ReplicatedGenerator]:
    routed = ReplicatedGenerator(replicas, RoutingMetrics(registry or CollectorRegistry()), policy)
    yield routed
    await routed.close()


def problem_of(ordinal: int, count: int = 2) -> str:
    """A problem whose home is this replica of so many."""
    idle = dict.fromkeys(range(count), 0)
    return next(p for p in map(str, range(1000)) if choose(idle, p, 0, Random()) == ordinal)


def asking(ordinal: int = 0, n: int = 8, **sampling: int) -> GenerateRequest:
    return GenerateRequest.model_validate({"problem": problem_of(ordinal), "n": n, "sampling": sampling})


def scoring(ordinal: int = 0) -> ScoreRequest:
    return SCORE.model_copy(update={"problem": problem_of(ordinal)})


async def everything(generator: Generator, request: GenerateRequest) -> list[Completion | GenerateDone]:
    return [event async for event in generator.generate(request)]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def breaker(registry: CollectorRegistry, replica: str = "0") -> float | None:
    return value(registry, "e2h_upstream_breaker_state", service="verifier", replica=replica)


def load(registry: CollectorRegistry, replica: str) -> float | None:
    return value(registry, "e2h_upstream_outstanding_tokens", service="verifier", replica=replica)


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=lambda error: error.code)
async def test_what_one_verifier_cannot_score_another_scores(fault: E2HError) -> None:
    registry, broken, well = CollectorRegistry(), FakeVerifier(failure=fault), FakeVerifier()
    async with verifiers(broken, well, registry=registry) as routed:
        response, _ = await routed.score(scoring())
    assert len(response.solutions) == len(broken.requests) == len(well.requests) == 1
    assert value(registry, "e2h_upstream_retries_total", service="verifier") == 1


@pytest.mark.parametrize("refusal", [Overloaded("full"), ContextLengthExceeded("long"), DeadlineExceeded("late")])
async def test_a_refusal_is_not_asked_for_twice(refusal: E2HError) -> None:
    refusing, other = FakeVerifier(failure=refusal), FakeVerifier()
    async with verifiers(refusing, other) as routed:
        for _ in range(10):
            with pytest.raises(type(refusal)):
                await routed.score(scoring())
    assert (len(refusing.requests), len(other.requests)) == (10, 0)  # nor is it a reason to leave the replica out


async def test_each_replica_is_tried_once() -> None:
    replicas = [FakeVerifier(failure=NotReady(str(k))) for k in range(3)]
    async with verifiers(*replicas) as routed:
        with pytest.raises(NotReady):
            await routed.score(SCORE)
    assert [len(replica.requests) for replica in replicas] == [1, 1, 1]


async def test_a_replica_that_fails_is_left_out_then_let_in_when_it_is_ready() -> None:
    registry, broken, well = CollectorRegistry(), FakeVerifier(failure=unreachable()), FakeVerifier()
    async with verifiers(broken, well, policy=HASTY, registry=registry) as routed:
        for _ in range(100):
            await routed.score(scoring(1))  # traffic that earns retries
        for _ in range(4):
            await routed.score(scoring())
        assert breaker(registry) == 0
        broken.not_ready = "down"
        await routed.score(scoring())
        assert breaker(registry) == 2
        for _ in range(5):
            await routed.score(scoring())
        assert len(broken.requests) == 5
        broken.failure = broken.not_ready = None
        assert await eventually(lambda: breaker(registry) == 0)
        await routed.score(scoring())
    assert broken.answered == 1


async def test_when_all_are_left_out_requests_are_refused_at_once() -> None:
    replicas = [FakeVerifier(failure=unreachable()) for _ in range(2)]
    async with verifiers(*replicas) as routed:
        for _ in range(20):
            with pytest.raises(UpstreamUnavailable):
                await routed.score(SCORE)
        asked = sum(len(replica.requests) for replica in replicas)
        with pytest.raises(UpstreamUnavailable) as refused:
            await routed.score(SCORE)
        assert await routed.ready() is not None
    assert asked == sum(len(replica.requests) for replica in replicas) == 10
    assert refused.value.retry_after_s >= 1


@dataclass
class Flapping(FakeVerifier):
    """Ready, and fails every third request all the same."""

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        self.failure = None if len(self.requests) % 3 else unreachable()
        return await super().score(request)


async def test_retries_are_a_tenth_of_the_traffic() -> None:
    registry, replicas, failed, asked = CollectorRegistry(), [Flapping(), Flapping()], 0, 400
    async with verifiers(*replicas, registry=registry) as routed:
        for place in range(asked):
            try:
                await routed.score(scoring(place % 2))
            except UpstreamUnavailable:
                failed += 1
    retries = sum(len(replica.requests) for replica in replicas) - asked
    assert failed > 0
    assert value(registry, "e2h_upstream_retries_total", service="verifier") == retries
    assert 0.1 * asked <= retries <= 0.1 * asked + 4
    assert 0 < (value(registry, "e2h_upstream_retries_refused_total", service="verifier") or 0) <= failed


@dataclass
class Dying(FakeVerifier):
    """Fails all that is under way once `hold` is set."""

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        await super().score(request)
        raise unreachable()


@pytest.mark.parametrize("reason", ["down", None], ids=["gone", "ready and failing"])
async def test_all_that_was_under_way_at_a_replica_that_is_left_out_moves(reason: str | None) -> None:
    hold = asyncio.Event()
    dying, well = Dying(hold=hold, not_ready=reason), FakeVerifier()
    async with verifiers(dying, well) as routed:
        waiting = [asyncio.create_task(routed.score(scoring())) for _ in range(64)]
        assert await eventually(lambda: len(dying.requests) == 64)
        hold.set()
        await asyncio.gather(*waiting)
    assert well.answered == 64


async def test_a_verifier_that_hangs_is_left_for_another_and_let_in_when_it_goes_on() -> None:
    registry, hanging, well = CollectorRegistry(), Hanging(), FakeVerifier()
    async with verifiers(hanging, well, policy=HASTY, registry=registry) as routed:
        answers = await asyncio.gather(*(routed.score(scoring()) for _ in range(3)))
        assert (len(answers), hanging.cancelled) == (3, 3)
        assert breaker(registry) != 0
        assert hanging.hold is not None
        hanging.hold.set()
        assert await eventually(lambda: breaker(registry) == 0)
        await routed.score(scoring())
    assert hanging.answered == 1


async def test_a_verifier_that_only_takes_its_time_is_waited_for() -> None:
    slow, other = FakeVerifier(hold=asyncio.Event()), FakeVerifier()
    async with verifiers(slow, other, policy=HASTY) as routed:
        waiting = asyncio.create_task(routed.score(scoring()))
        await asyncio.sleep(0.5)  # ten probes
        assert slow.hold is not None
        slow.hold.set()
        await waiting
    assert (slow.answered, len(other.requests)) == (1, 0)


async def test_a_lone_verifier_is_waited_for_even_when_it_hangs() -> None:
    hanging = Hanging()
    async with verifiers(hanging, policy=HASTY) as routed:
        waiting = asyncio.create_task(routed.score(SCORE))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        assert hanging.hold is not None
        hanging.hold.set()
        await waiting


async def test_a_verifier_that_hangs_is_found_out_by_callers_who_give_up() -> None:
    registry, hanging, well = CollectorRegistry(), Hanging(), FakeVerifier()
    async with verifiers(hanging, well, policy=HASTY, registry=registry) as routed:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(routed.score(scoring()), timeout=0.01)
        assert await eventually(lambda: breaker(registry) != 0)


async def test_nothing_is_tried_again_past_the_deadline_or_shortly_before() -> None:
    broken, well = FakeVerifier(), FakeVerifier()
    async with verifiers(broken, well) as routed:
        for ordinal in (0, 1):
            asking = asyncio.create_task(routed.score(scoring(ordinal)))
            await asyncio.sleep(0)
            await asking
        broken.failure = unreachable()
        context.set_budget(-1.0)
        with pytest.raises(UpstreamUnavailable):
            await routed.score(scoring())
    assert len(well.requests) == 1


async def test_solutions_of_a_problem_share_a_verifier() -> None:
    replicas = [FakeVerifier(), FakeVerifier(), FakeVerifier()]
    routed = ReplicatedVerifier(replicas, RoutingMetrics(CollectorRegistry()))
    await asyncio.gather(*(routed.score(SCORE) for _ in range(16)))
    await routed.close()
    assert sorted(len(replica.requests) for replica in replicas) == [0, 0, 16]


async def test_load_is_let_go_however_a_request_ends() -> None:
    registry = CollectorRegistry()
    replicas = [FakeVerifier(failure=NotReady("no")), FakeVerifier(hold=asyncio.Event())]
    async with verifiers(*replicas, registry=registry) as routed:
        leaving = asyncio.create_task(routed.score(scoring()))
        await replicas[1].began.wait()
        assert (load(registry, "0"), load(registry, "1")) == (0, 1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert (load(registry, "0"), load(registry, "1")) == (0, 0)


async def test_a_probe_that_breaks_does_not_end_the_probing() -> None:
    class Odd(FakeVerifier):
        broken = True

        async def ready(self) -> str | None:
            if self.broken:
                raise ValueError
            return None

    registry, odd = CollectorRegistry(), Odd(failure=unreachable())
    async with verifiers(odd, FakeVerifier(), policy=HASTY, registry=registry) as routed:
        await routed.score(scoring())
        assert breaker(registry) != 0
        await asyncio.sleep(0.2)
        odd.broken = False
        assert await eventually(lambda: breaker(registry) == 0)


# --- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=lambda error: error.code)
@pytest.mark.parametrize("seed", [None, 7])
async def test_samples_that_a_generator_lost_are_made_again_with_the_same_seed(
    fault: E2HError, seed: int | None
) -> None:
    registry = CollectorRegistry()
    dying = FakeGenerator(["x"], order=[4, 1, 6, 0, 2, 3, 5, 7], failure=fault, fail_after=3)
    survivor = FakeGenerator(["x"])
    request = asking() if seed is None else asking(seed=seed)
    async with generators(dying, survivor, registry=registry) as routed:
        *samples, done = await everything(routed, request)
    assert [s.index for s in samples if isinstance(s, Completion)] == [4, 1, 6, 0, 2, 3, 5, 7]
    (first,), (again,) = dying.requests, survivor.requests
    assert (again.n, again.indices) == (5, [0, 2, 3, 5, 7])
    assert first.sampling.seed is not None
    assert again.sampling == first.sampling
    assert seed in (None, first.sampling.seed)
    assert isinstance(done, GenerateDone)
    assert done.usage.completion_tokens == sum(s.tokens for s in samples if isinstance(s, Completion))
    assert value(registry, "e2h_samples_remade_total") == 5


async def test_two_requests_without_a_seed_draw_different_ones() -> None:
    fake = FakeGenerator(["x"])
    async with generators(fake) as routed:
        for _ in range(2):
            await everything(routed, asking(n=1))
    assert fake.requests[0].sampling.seed != fake.requests[1].sampling.seed


async def test_a_generator_that_repeats_a_sample_is_not_believed() -> None:
    repeating, survivor = FakeGenerator(["x"], order=[0, 1, 1]), FakeGenerator(["x"])
    async with generators(repeating, survivor) as routed:
        *samples, _ = await everything(routed, asking(n=3))
    assert [s.index for s in samples if isinstance(s, Completion)] == [0, 1, 2]


async def test_a_lost_end_makes_no_sample_again() -> None:
    ending, other = FakeGenerator(["x"], failure=unreachable(), fail_after=3), FakeGenerator(["x"])
    async with generators(ending, other) as routed:
        with pytest.raises(UpstreamUnavailable):
            await everything(routed, asking(n=3))
    assert (ending.delivered, other.requests) == (3, [])


async def test_a_generator_that_hangs_midway_is_left_for_another() -> None:
    hanging = HangingGenerator(["x"], holds={2: asyncio.Event()})
    survivor = FakeGenerator(["x"])
    async with generators(hanging, survivor, policy=HASTY) as routed:
        *samples, _ = await everything(routed, asking(n=4))
    assert [s.index for s in samples if isinstance(s, Completion)] == [0, 1, 2, 3]
    assert (hanging.cancelled, survivor.requests[0].indices) == (1, [2, 3])


async def test_closing_stops_the_samples_wherever_they_are_made() -> None:
    dying = FakeGenerator(["x"], failure=unreachable(), fail_after=1)
    survivor = FakeGenerator(["x"], holds={2: asyncio.Event()})
    async with generators(dying, survivor) as routed, contextlib.aclosing(routed.generate(asking(n=4))) as events:
        assert [(await anext(events)).index for _ in range(2)] == [0, 1]  # type: ignore[union-attr]
    assert (survivor.delivered, survivor.cancelled) == (1, 1)


# --- readiness -------------------------------------------------------------------------------------------------------


async def test_one_ready_replica_of_each_kind_is_enough_and_the_others_are_named() -> None:
    async with (
        generators(FakeGenerator(["x"], not_ready="no engine"), FakeGenerator(["x"])) as generator,
        verifiers(FakeVerifier(), FakeVerifier(), FakeVerifier(not_ready="no model")) as verifier,
    ):
        lifecycle = Lifecycle(
            phase="serving",
            checks=[generator.ready, verifier.ready],
            optional=[*generator.checks(), *verifier.checks()],
        )
        state = await lifecycle.readiness()
    assert (state.status, state.degraded) == ("ready", ["generator 0: no engine", "verifier 2: no model"])


async def test_without_a_ready_replica_of_a_kind_it_is_not_ready() -> None:
    async with verifiers(FakeVerifier(not_ready="no model"), FakeVerifier(not_ready="no model")) as routed:
        assert await routed.ready() == "no model"


async def test_readiness_does_not_wait_for_a_replica_that_hangs() -> None:
    async with verifiers(Hanging(), FakeVerifier()) as routed:
        assert await asyncio.wait_for(routed.ready(), timeout=5) is None


# --- over sockets ----------------------------------------------------------------------------------------------------


class Cutting:
    """An app whose connection breaks after so many parts of each body, like a process that is killed."""

    def __init__(self, app: ASGIApp, after: int) -> None:
        self._app = app
        self._after = after
        self.cut = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = 0

        async def counted(message: Message) -> None:
            nonlocal parts
            if message["type"] == "http.response.body" and scope["path"] == "/v1/generate":
                if parts == self._after:
                    self.cut += 1
                    raise ConnectionAbortedError
                parts += 1
            await send(message)

        with contextlib.suppress(ConnectionAbortedError):
            await self._app(scope, receive, counted)


@contextlib.asynccontextmanager
async def reached(*apps: ASGIApp) -> AsyncIterator[list[HttpGenerator]]:
    """Clients of these apps over sockets; those after the apps that are served find nobody listening."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for app in apps:
            address = await stack.enter_async_context(served(app))
            client = HttpGenerator(upstream("generator", address.url, connect_timeout_s=2, read_timeout_s=20))
            stack.push_async_callback(client.close)
            clients.append(client)
        yield clients


def solver(generator: Generator, verifier: Verifier) -> Solver:
    return Solver(generator, verifier, InlineGrader(), SolveMetrics(CollectorRegistry()))


SOLVE = SolveRequest(problem=problem_of(0), n=8)
TEXTS = [solution(str(k), f"so {k}") for k in range(8)]


async def test_a_solve_survives_the_death_of_a_generator_amid_its_samples() -> None:
    dying, survivor = FakeGenerator(TEXTS), FakeGenerator(TEXTS)
    cutting = Cutting(generator_app(dying), after=3)
    async with reached(cutting, generator_app(survivor)) as clients, generators(*clients) as routed:
        response = await solver(routed, FakeVerifier()).solve(SOLVE)
    assert (response.partial, [c.text for c in response.candidates]) == (False, TEXTS)
    assert cutting.cut == 1
    assert len(survivor.requests[0].indices or []) == 5
    assert survivor.requests[0].sampling.seed == dying.requests[0].sampling.seed


async def test_without_a_survivor_the_answer_is_made_of_what_is_there() -> None:
    async with (
        reached(*(Cutting(generator_app(FakeGenerator(TEXTS)), after=k) for k in (3, 2))) as clients,
        generators(*clients) as routed,
    ):
        response = await solver(routed, FakeVerifier()).solve(SOLVE)
    assert (response.partial, len(response.candidates)) == (True, 5)
    assert response.answer is not None


@pytest.mark.parametrize("after", [0, 3])
async def test_without_a_survivor_and_a_score_the_service_is_unavailable(after: int) -> None:
    async with (
        reached(Cutting(generator_app(FakeGenerator([""])), after=after)) as clients,
        generators(*clients) as routed,
    ):
        with pytest.raises(UpstreamUnavailable):
            await solver(routed, FakeVerifier()).solve(SOLVE)


async def test_a_generator_that_is_down_is_not_noticed() -> None:
    async with served(generator_app(FakeGenerator(TEXTS))) as gone:
        pass
    async with reached(generator_app(FakeGenerator(TEXTS))) as (well,):
        down = HttpGenerator(upstream("generator", gone.url, connect_timeout_s=2, read_timeout_s=20))
        async with generators(down, well) as routed:
            responses = [await solver(routed, FakeVerifier()).solve(SOLVE) for _ in range(12)]
            degraded = [await check() for check in routed.checks()]
        await down.close()
    assert [len(response.candidates) for response in responses] == [8] * 12
    assert degraded[0] is not None
    assert degraded[1] is None


async def test_verifiers_over_sockets_stand_in_for_each_other() -> None:
    registry = CollectorRegistry()
    apps = [verifier_app(FakeVerifier(failure=failure)) for failure in (NotReady("loading"), None)]
    async with served(apps[0]) as first, served(apps[1]) as second:
        clients = [
            HttpVerifier(upstream("verifier", a.url, connect_timeout_s=2, read_timeout_s=20)) for a in (first, second)
        ]
        async with verifiers(*clients, registry=registry) as routed:
            response = await solver(FakeGenerator(TEXTS), routed).solve(SOLVE)
        for client in clients:
            await client.close()
    assert all(c.score is not None for c in response.candidates)


# --- throughput ------------------------------------------------------------------------------------------------------


@dataclass
class Timed(FakeGenerator):
    """Serves one request at a time, each for a fixed time: an engine of known capacity."""

    service_s: float = 0.04
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def generate(self, request: GenerateRequest):  # type: ignore[no-untyped-def]
        async with self.turn:
            await asyncio.sleep(self.service_s)
        async for event in super().generate(request):
            yield event


async def seconds_of(replicas: int, requests: int = 200, callers: int = 32) -> float:
    """How long so many replicas take for requests of as many problems."""
    loop = asyncio.get_running_loop()
    async with generators(*(Timed(["x"]) for _ in range(replicas)), policy=Policy()) as routed:
        waiting = iter(range(requests))

        async def caller() -> None:
            for place in waiting:
                await everything(routed, GenerateRequest(problem=f"problem {place}", n=1))

        began = loop.time()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return loop.time() - began


@pytest.mark.alone
async def test_throughput_grows_with_replicas() -> None:
    alone, two, four = [await seconds_of(replicas) for replicas in (1, 2, 4)]
    # Some 1.97 and 3.8 on a quiet machine; a choice that ignored load would stay far below.
    assert alone / two >= 1.6
    assert alone / four >= 2.6

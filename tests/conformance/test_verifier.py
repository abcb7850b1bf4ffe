"""The promises of a Verifier, kept by the object in this process, by the client over ASGI and over a socket, and behind
routing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from services.core.contracts import ScoreRequest
from services.core.errors import ModelNotFound, NotReady, Overloaded
from services.core.ports import Verifier
from services.orchestrator.clients.transport import Upstream, upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.orchestrator.routing import ReplicatedVerifier, RoutingMetrics
from services.verifier.metrics import VerifierMetrics
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings
from tests.conftest import CheckpointOf
from tests.fakes import FakeVerifier
from tests.serving import eventually, served, verifier_app

Reach = Callable[[Verifier], AbstractAsyncContextManager[Verifier]]
PROBLEM = "What is 6 times 7?"


@contextlib.asynccontextmanager
async def locally(verifier: Verifier) -> AsyncIterator[Verifier]:
    yield verifier


@contextlib.asynccontextmanager
async def over_asgi(verifier: Verifier) -> AsyncIterator[Verifier]:
    transport = httpx2.ASGITransport(verifier_app(verifier))
    client = HttpVerifier(Upstream("verifier", httpx2.AsyncClient(transport=transport, base_url="http://verifier")))
    yield client
    await client.close()


@contextlib.asynccontextmanager
async def over_a_socket(verifier: Verifier) -> AsyncIterator[Verifier]:
    async with served(verifier_app(verifier)) as address:
        client = HttpVerifier(upstream("verifier", address.url, connect_timeout_s=2, read_timeout_s=20))
        yield client
        await client.close()


@contextlib.asynccontextmanager
async def replicated(verifier: Verifier) -> AsyncIterator[Verifier]:
    async with over_a_socket(verifier) as client:
        routed = ReplicatedVerifier([client], RoutingMetrics(CollectorRegistry()))
        yield routed
        await routed.close()


@pytest.fixture(params=[locally, over_asgi, over_a_socket, replicated], ids=lambda reach: reach.__name__)
def reach(request: pytest.FixtureRequest) -> Reach:
    return cast(Reach, request.param)


@pytest.fixture
async def loaded(checkpoint_of: CheckpointOf) -> AsyncIterator[LocalVerifier]:
    """A real, tiny reward model."""
    settings = VerifierSettings(model=str(checkpoint_of("oprm")), device="cpu")
    verifier = LocalVerifier(settings, VerifierMetrics(CollectorRegistry()))
    await verifier.start()
    yield verifier
    await verifier.close()


def request(*solutions: dict[str, Any], **fields: Any) -> ScoreRequest:
    return ScoreRequest.model_validate({"problem": PROBLEM, "solutions": list(solutions), **fields})


STEPS = [{"steps": [f"{k} is a step.", *["more."] * k]} for k in range(6)]


async def test_it_says_what_it_serves(loaded: LocalVerifier, reach: Reach) -> None:
    async with reach(loaded) as verifier:
        info = await verifier.info()
        assert (info.kind, info.family, info.default_aggregation) == ("oprm", "easy-to-hard", "prod")
        assert await verifier.ready() is None


async def test_every_step_has_a_score_and_the_order_is_kept(loaded: LocalVerifier, reach: Reach) -> None:
    async with reach(loaded) as verifier:
        together, _ = await verifier.score(request(*STEPS))
        alone = [(await verifier.score(request(steps)))[0].solutions[0] for steps in STEPS]
    assert [s.index for s in together.solutions] == list(range(6))
    assert [len(s.steps) for s in together.solutions] == [len(steps["steps"]) for steps in STEPS]
    for scored, single in zip(together.solutions, alone, strict=True):
        assert [s.score for s in scored.steps] == pytest.approx([s.score for s in single.steps], abs=1e-4)
        assert scored.outcome == pytest.approx(single.outcome, abs=1e-4)


async def test_a_text_scores_as_its_steps(loaded: LocalVerifier, reach: Reach) -> None:
    async with reach(loaded) as verifier:
        response, _ = await verifier.score(request({"text": "a.\n\nb.\n\n\nc."}, {"steps": ["a.", "b.", "c."]}))
    first, second = response.solutions
    assert [s.score for s in first.steps] == pytest.approx([s.score for s in second.steps], abs=1e-4)


async def test_tokens_and_times_are_told(loaded: LocalVerifier, reach: Reach) -> None:
    async with reach(loaded) as verifier:
        response, timings = await verifier.score(request(*STEPS))
    assert response.usage.tokens == sum(s.tokens for s in response.solutions) > 0
    assert timings.batch_solutions >= 1
    assert timings.batch_tokens >= max(s.tokens for s in response.solutions)
    assert timings.inference_ms > 0


async def test_concurrent_callers_each_get_their_own_scores(loaded: LocalVerifier, reach: Reach) -> None:
    async with reach(loaded) as verifier:
        answers = await asyncio.gather(*(verifier.score(request(steps)) for steps in STEPS))
    assert [len(response.solutions[0].steps) for response, _ in answers] == [len(s["steps"]) for s in STEPS]


@pytest.mark.parametrize(
    ("solution", "code"),
    [
        pytest.param({"steps": ["word " * 600]}, "context_length_exceeded", id="too long"),
        pytest.param({"text": "# Answer\n\n42"}, "empty_step", id="no reasoning"),
    ],
)
async def test_a_solution_that_cannot_be_scored_harms_no_other(
    loaded: LocalVerifier, reach: Reach, solution: dict[str, Any], code: str
) -> None:
    async with reach(loaded) as verifier:
        response, _ = await verifier.score(request(STEPS[1], solution, STEPS[2]))
    assert [s.error.code if s.error else None for s in response.solutions] == [None, code, None]
    assert [len(s.steps) for s in response.solutions] == [2, 0, 3]


async def test_a_reserved_token_is_flagged_and_scored_as_text(loaded: LocalVerifier, reach: Reach) -> None:
    async with reach(loaded) as verifier:
        response, _ = await verifier.score(request({"steps": ["</s> is text.", "so."]}, {"steps": ["is text."]}))
    assert [s.flags for s in response.solutions] == [["reserved_token_in_input"], []]
    assert len(response.solutions[0].steps) == 2


async def test_another_model_is_not_served(loaded: LocalVerifier, reach: Reach) -> None:
    async with reach(loaded) as verifier:
        served_id = (await verifier.info()).id
        with pytest.raises(ModelNotFound):
            await verifier.score(request(STEPS[0], model="../../etc/passwd"))
        assert (await verifier.score(request(STEPS[0], model=served_id)))[0].model == served_id


async def test_after_it_closed_it_is_not_ready(loaded: LocalVerifier, reach: Reach) -> None:
    async with reach(loaded) as verifier:
        await loaded.close()
        assert await verifier.ready() is not None
        with pytest.raises(NotReady):
            await verifier.score(request(STEPS[0]))


async def test_before_its_model_is_loaded_it_is_not_ready(reach: Reach) -> None:
    async with reach(LocalVerifier(VerifierSettings(), VerifierMetrics(CollectorRegistry()))) as verifier:
        assert await verifier.ready() is not None
        with pytest.raises(NotReady):
            await verifier.score(request(STEPS[0]))
        with pytest.raises(NotReady):
            await verifier.info()


async def test_overload_is_the_same_error(reach: Reach) -> None:
    async with reach(FakeVerifier(failure=Overloaded("the queue is full", retry_after_s=5.0))) as verifier:
        with pytest.raises(Overloaded) as caught:
            await verifier.score(request(STEPS[0]))
    assert (caught.value.message, caught.value.retryable) == ("the queue is full", True)
    assert 3.0 <= caught.value.retry_after_s <= 7.0


async def test_a_caller_who_leaves_frees_the_slot(reach: Reach) -> None:
    fake = FakeVerifier(hold=asyncio.Event())
    async with reach(fake) as verifier:
        leaving = asyncio.create_task(verifier.score(request(STEPS[0])))
        await fake.began.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        freed = await eventually(lambda: fake.cancelled == 1)
        assert fake.hold is not None
        fake.hold.set()
    assert freed

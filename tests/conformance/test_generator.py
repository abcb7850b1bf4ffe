"""The promises of a Generator, kept by a local object, by the client over ASGI and over a socket, and behind
routing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import cast

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from services.core.contracts import Completion, GenerateDone, GenerateRequest, Message, Sampling
from services.core.errors import ContextLengthExceeded, E2HError, NotReady, Overloaded, UpstreamUnavailable
from services.core.ports import Generator
from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.transport import Upstream, upstream
from services.orchestrator.routing import ReplicatedGenerator, RoutingMetrics
from tests.fakes import PROMPT_TOKENS, TOKENS_OF_A_SAMPLE, FakeGenerator
from tests.serving import eventually, generator_app, served

Reach = Callable[[Generator], AbstractAsyncContextManager[Generator]]


@contextlib.asynccontextmanager
async def locally(generator: Generator) -> AsyncIterator[Generator]:
    yield generator


@contextlib.asynccontextmanager
async def over_asgi(generator: Generator) -> AsyncIterator[Generator]:
    transport = httpx2.ASGITransport(generator_app(generator))
    client = HttpGenerator(Upstream("generator", httpx2.AsyncClient(transport=transport, base_url="http://generator")))
    yield client
    await client.close()


@contextlib.asynccontextmanager
async def over_a_socket(generator: Generator) -> AsyncIterator[Generator]:
    async with served(generator_app(generator)) as address:
        client = HttpGenerator(upstream("generator", address.url, connect_timeout_s=2, read_timeout_s=20))
        yield client
        await client.close()


@contextlib.asynccontextmanager
async def replicated(generator: Generator) -> AsyncIterator[Generator]:
    async with over_a_socket(generator) as client:
        routed = ReplicatedGenerator([client], RoutingMetrics(CollectorRegistry()))
        yield routed
        await routed.close()


@pytest.fixture(params=[locally, over_asgi, over_a_socket, replicated], ids=lambda reach: reach.__name__)
def reach(request: pytest.FixtureRequest) -> Reach:
    return cast(Reach, request.param)


# The in-process transport hands over a response only when it is whole; streams are told apart by these two.
streaming = pytest.mark.parametrize("reach", [locally, over_a_socket, replicated], ids=lambda reach: reach.__name__)


def request(n: int) -> GenerateRequest:
    return GenerateRequest(problem="What is 6 times 7?", n=n)


async def everything(generator: Generator, asked: GenerateRequest) -> list[Completion | GenerateDone]:
    return [event async for event in generator.generate(asked)]


async def test_it_says_what_it_serves(reach: Reach) -> None:
    async with reach(FakeGenerator(["x"])) as generator:
        info = await generator.info()
        assert (info.id, info.context_length) == ("fake-generator", 512)
        assert await generator.ready() is None


async def test_it_says_that_it_is_not_ready(reach: Reach) -> None:
    async with reach(FakeGenerator(["x"], not_ready="the engine died")) as generator:
        assert await generator.ready() is not None


async def test_every_sample_comes_once_in_any_order_then_the_end(reach: Reach) -> None:
    texts = ["zero", "one\n\ntwo", "\N{GREEK SMALL LETTER PI} \u2028 \x85 end", ""]
    async with reach(FakeGenerator(texts, order=[2, 0, 3, 1])) as generator:
        *completions, done = await everything(generator, request(4))
    assert [c.index for c in completions if isinstance(c, Completion)] == [2, 0, 3, 1]
    assert {c.index: c.text for c in completions if isinstance(c, Completion)} == dict(enumerate(texts))
    assert isinstance(done, GenerateDone)
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (PROMPT_TOKENS, 4 * TOKENS_OF_A_SAMPLE)


async def test_samples_can_be_asked_for_by_their_indices(reach: Reach) -> None:
    texts = [str(k) for k in range(8)]
    async with reach(FakeGenerator(texts)) as generator:
        all_eight = await everything(generator, request(8))
        *some, done = await everything(generator, GenerateRequest(problem="p", n=3, indices=[6, 2, 3]))
    # The prompt is read anew for them, and told with the first.
    told = [one.model_copy(update={"prompt_tokens": 0}) for one in some if isinstance(one, Completion)]
    assert told == [all_eight[6], all_eight[2], all_eight[3]]
    assert isinstance(done, GenerateDone)
    assert done.usage.completion_tokens == 3 * TOKENS_OF_A_SAMPLE


async def test_a_sample_keeps_all_that_is_known_of_it(reach: Reach) -> None:
    async with reach(FakeGenerator(["x"], finish_reasons={0: "length"})) as generator:
        sample, _ = await everything(generator, request(1))
    assert sample == Completion(
        index=0,
        text="x",
        tokens=TOKENS_OF_A_SAMPLE,
        finish_reason="length",
        logprob=-1.5,
        seed=1000,
        prompt_tokens=PROMPT_TOKENS,
    )


@pytest.mark.parametrize("stopped", [{}, {0: "\n\n"}, {0: "\N{GREEK SMALL LETTER PI}"}], ids=["itself", "blank", "pi"])
async def test_a_sample_says_which_stop_string_ended_it_or_that_none_did(reach: Reach, stopped: dict[int, str]) -> None:
    async with reach(FakeGenerator(["x"], stop_reasons=stopped)) as generator:
        sample, _ = await everything(generator, request(1))
    assert isinstance(sample, Completion)
    assert (sample.finish_reason, sample.stop_reason) == ("stop", stopped.get(0))


async def test_the_request_arrives_as_it_was_made(reach: Reach) -> None:
    fake = FakeGenerator(["x"])
    asked = GenerateRequest(
        problem="p",
        messages=[Message(role="system", content="s")],
        prefix="one.\n\n",
        n=3,
        sampling=Sampling(temperature=1.5, top_p=0.25, max_tokens=9, seed=2**62 + 1, stop=["\n\n\n"]),
    )
    async with reach(fake) as generator:
        await everything(generator, asked)
    assert fake.requests[0].model_copy(update={"stream": False}) == asked


@pytest.mark.parametrize(
    "failure",
    [Overloaded("full"), NotReady("loading"), ContextLengthExceeded("long", param="problem"), UpstreamUnavailable("x")],
    ids=lambda error: error.code,
)
@pytest.mark.parametrize("after", [0, 2])
async def test_a_failure_is_the_same_error_at_once_and_midway(reach: Reach, failure: E2HError, after: int) -> None:
    fake = FakeGenerator(["x"], failure=failure, fail_after=after)
    async with reach(fake) as generator:
        with pytest.raises(type(failure)) as caught:
            await everything(generator, request(4))
    assert (caught.value.code, caught.value.message, caught.value.param) == (
        failure.code,
        failure.message,
        failure.param,
    )
    assert fake.delivered == after


async def test_a_consumer_who_is_cancelled_stops_the_samples(reach: Reach) -> None:
    fake = FakeGenerator(["x"], holds={2: asyncio.Event()})
    async with reach(fake) as generator:
        consuming = asyncio.create_task(everything(generator, request(4)))
        assert await eventually(lambda: fake.delivered == 2)
        consuming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consuming
        assert await eventually(lambda: fake.cancelled == 1)
    assert fake.delivered == 2


@streaming
async def test_a_sample_is_delivered_while_others_still_run(reach: Reach) -> None:
    later = asyncio.Event()
    async with (
        reach(FakeGenerator(["x"], holds={1: later})) as generator,
        aclosing(generator.generate(request(2))) as events,
    ):
        first = await asyncio.wait_for(anext(events), timeout=5)
        assert isinstance(first, Completion)
        later.set()
        assert len([event async for event in events]) == 2


@streaming
async def test_closing_the_iterator_stops_the_samples(reach: Reach) -> None:
    fake = FakeGenerator(["x"], holds={1: asyncio.Event()})
    async with reach(fake) as generator:
        async with aclosing(generator.generate(request(2))) as events:
            await anext(events)
        assert await eventually(lambda: fake.cancelled == 1)
    assert fake.delivered == 1


async def test_without_streaming_the_route_answers_in_index_order() -> None:
    fake = FakeGenerator(["a", "b"], order=[1, 0])
    async with served(generator_app(fake)) as address, httpx2.AsyncClient(base_url=address.url) as client:
        body = (await client.post("/v1/generate", json={"problem": "p", "n": 2})).json()
    assert [c["text"] for c in body["completions"]] == ["a", "b"]


@pytest.mark.parametrize(("stream", "before"), [(False, 1), (False, 0), (True, 0)])
async def test_a_caller_who_leaves_before_the_response_begins_stops_the_samples(stream: bool, before: int) -> None:
    hold = asyncio.Event()
    fake = FakeGenerator(["x"], holds={before: hold})
    body = {"problem": "p", "n": before + 1, "stream": stream}
    async with served(generator_app(fake)) as address:
        async with httpx2.AsyncClient(base_url=address.url) as client:
            leaving = asyncio.create_task(client.post("/v1/generate", json=body))
            assert await eventually(lambda: len(fake.requests) == 1 and fake.delivered == before)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        stopped = await eventually(lambda: fake.cancelled == 1)
        hold.set()
    assert stopped

"""The ports over HTTP against our own apps: the same answers, the same errors, and a word that is checked."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from services.core.contracts import (
    Completion,
    GenerateDone,
    GenerateRequest,
    GenerationUsage,
    ScoreRequest,
)
from services.core.errors import (
    BodyTooLarge,
    ContextLengthExceeded,
    Draining,
    E2HError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    UpstreamContract,
    UpstreamUnavailable,
)
from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.transport import Upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.runtime.context import set_request_id
from services.runtime.sse import encode_event
from tests.fakes import FakeGenerator, FakeVerifier
from tests.serving import generator_app, verifier_app

ASKED = GenerateRequest(problem="p", n=2)
SCORE = ScoreRequest.model_validate({"problem": "p", "solutions": [{"steps": ["a", "b"]}, {"text": "c"}]})
Handler = Callable[[httpx2.Request], httpx2.Response]


def upstream(transport: httpx2.AsyncBaseTransport) -> Upstream:
    return Upstream("service", httpx2.AsyncClient(transport=transport, base_url="http://upstream"))


def generator_over(app_or_handler: Any, *, asgi: bool = True) -> HttpGenerator:
    transport = httpx2.ASGITransport(app_or_handler) if asgi else httpx2.MockTransport(app_or_handler)
    return HttpGenerator(upstream(transport))


def verifier_answering(handler: Handler) -> HttpVerifier:
    return HttpVerifier(upstream(httpx2.MockTransport(handler)))


def streaming(*events: bytes) -> HttpGenerator:
    """A generator whose service answers these events."""
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=b"".join(events))
    return generator_over(lambda _: response, asgi=False)


async def everything(generator: HttpGenerator, request: GenerateRequest = ASKED) -> list[Completion | GenerateDone]:
    return [event async for event in generator.generate(request)]


def sample(index: int) -> bytes:
    body = Completion(index=index, text="t", tokens=1, finish_reason="stop", logprob=None, seed=index)
    return encode_event("completion", body)


DONE = encode_event(
    "done",
    GenerateDone(id="g", model="m", usage=GenerationUsage(prompt_tokens=1, completion_tokens=2)),
)

FAULTS = [
    InvalidRequest("no", param="n", code="not_finite"),
    ContextLengthExceeded("has 900 tokens; the limit is 512", param="problem"),
    ModelNotFound("not here", param="model"),
    BodyTooLarge("the body exceeds 10 bytes"),
    Overloaded("full", retry_after_s=7.0),
    NotReady("loading"),
    Draining("stopping"),
    UpstreamUnavailable("gone"),
    UpstreamContract("nonsense"),
]


def same(received: E2HError, sent: E2HError) -> bool:
    def told(error: E2HError) -> tuple[object, ...]:
        return (type(error), error.code, error.message, error.param, error.retryable)

    return told(received) == told(sent)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=lambda error: error.code)
async def test_a_refusal_to_sample_is_the_same_error_here(fault: E2HError) -> None:
    with pytest.raises(type(fault)) as caught:
        await everything(generator_over(generator_app(FakeGenerator(["x"], failure=fault))))
    assert same(caught.value, fault)


@pytest.mark.parametrize("fault", FAULTS[1:], ids=lambda error: error.code)
async def test_a_fault_amid_the_samples_is_the_same_error_here(fault: E2HError) -> None:
    generator = generator_over(generator_app(FakeGenerator(["x"], failure=fault, fail_after=1)))
    events = generator.generate(ASKED)
    assert isinstance(await anext(events), Completion)
    with pytest.raises(type(fault)) as caught:
        await anext(events)
    assert same(caught.value, fault)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda error: error.code)
async def test_a_refusal_to_score_is_the_same_error_here(fault: E2HError) -> None:
    verifier = HttpVerifier(upstream(httpx2.ASGITransport(verifier_app(FakeVerifier(failure=fault)))))
    with pytest.raises(type(fault)) as caught:
        await verifier.score(SCORE)
    assert same(caught.value, fault)


async def test_the_wait_that_an_overloaded_service_predicts_is_kept() -> None:
    app = verifier_app(FakeVerifier(failure=Overloaded("full", retry_after_s=10.0)))
    with pytest.raises(Overloaded) as caught:
        await HttpVerifier(upstream(httpx2.ASGITransport(app))).score(SCORE)
    assert 8.0 <= caught.value.retry_after_s <= 12.0


@pytest.mark.parametrize("failure", [InternalError("secret"), RuntimeError("secret")], ids=["told", "raised"])
async def test_a_bug_over_there_is_an_unavailable_service_here(failure: Exception) -> None:
    app = verifier_app(FakeVerifier(failure=failure))  # type: ignore[arg-type]
    with pytest.raises(UpstreamUnavailable) as caught:
        await HttpVerifier(upstream(httpx2.ASGITransport(app))).score(SCORE)
    assert "secret" not in caught.value.message


# --- a word that is checked ------------------------------------------------------------------------------------------


async def test_samples_arrive_with_their_end() -> None:
    events = await everything(streaming(sample(1), sample(0), DONE))
    assert [e.index for e in events if isinstance(e, Completion)] == [1, 0]
    assert isinstance(events[-1], GenerateDone)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing"),
        pytest.param([sample(0), sample(1)], id="no last event"),
        pytest.param([sample(0), DONE], id="a sample is missing"),
        pytest.param([sample(0), sample(0), DONE], id="a sample twice"),
        pytest.param([sample(0), sample(2), DONE], id="a sample that was not asked for"),
        pytest.param([sample(-1)], id="a negative index"),
        pytest.param([b"event: completion\ndata: {}\n\n"], id="a sample without fields"),
        pytest.param([b"event: completion\ndata: nonsense\n\n"], id="no JSON"),
        pytest.param([sample(0), sample(1), b"event: done\ndata: {}\n\n"], id="an end without fields"),
        pytest.param([b"event: error\ndata: {}\n\n"], id="an error without fields"),
    ],
)
async def test_a_stream_outside_of_the_contract_is_refused(events: list[bytes]) -> None:
    with pytest.raises(UpstreamContract):
        await everything(streaming(*events))


async def test_an_event_of_an_unknown_name_is_passed_over() -> None:
    events = await everything(streaming(b"event: ping\ndata: {}\n\n", sample(0), sample(1), DONE))
    assert len(events) == 3


@pytest.mark.parametrize(
    ("response", "error"),
    [
        pytest.param(httpx2.Response(200, text="<html>"), (UpstreamContract, UpstreamUnavailable), id="a web page"),
        pytest.param(httpx2.Response(302, headers={"location": "http://x"}), UpstreamUnavailable, id="a redirect"),
        pytest.param(httpx2.Response(502, text="<html>"), UpstreamUnavailable, id="a proxy's error"),
        pytest.param(httpx2.Response(422, json={"detail": []}), UpstreamUnavailable, id="an error of another kind"),
        pytest.param(httpx2.Response(500), UpstreamUnavailable, id="an empty error"),
    ],
)
async def test_what_is_no_service_of_ours_is_told_apart(response: httpx2.Response, error: Any) -> None:
    with pytest.raises(error):
        await everything(generator_over(lambda _: response, asgi=False))
    with pytest.raises(error):
        await verifier_answering(lambda _: response).score(SCORE)


@pytest.mark.parametrize(
    "fault", [httpx2.ConnectError("no"), httpx2.ReadTimeout("late"), httpx2.RemoteProtocolError("cut")], ids=repr
)
async def test_a_connection_that_fails_is_an_unavailable_service(fault: httpx2.HTTPError) -> None:
    def fail(_: httpx2.Request) -> httpx2.Response:
        raise fault

    generator, verifier = generator_over(fail, asgi=False), verifier_answering(fail)
    with pytest.raises(UpstreamUnavailable):
        await everything(generator)
    with pytest.raises(UpstreamUnavailable):
        await verifier.score(SCORE)
    with pytest.raises(UpstreamUnavailable):
        await verifier.info()
    assert await verifier.ready() == "the service does not answer"
    assert await generator.ready() == "the service does not answer"


async def scored(change: Callable[[dict[str, Any]], None], **headers: str) -> Any:
    """What the client makes of a verifier's true answer with a `change` made to it."""
    response, _ = await FakeVerifier().score(SCORE)
    body = response.model_dump(mode="json")
    change(body)
    return await verifier_answering(lambda _: httpx2.Response(200, json=body, headers=headers)).score(SCORE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda body: body["solutions"].pop(), id="a solution too few"),
        pytest.param(lambda body: body["solutions"].append(body["solutions"][0]), id="a solution too many"),
        pytest.param(lambda body: body["solutions"].reverse(), id="another order"),
        pytest.param(lambda body: body["solutions"][0]["steps"].pop(), id="a step score too few"),
        pytest.param(lambda body: body["solutions"][0]["steps"].append({"score": 0.5}), id="a step score too many"),
        pytest.param(lambda body: body["solutions"][0]["steps"][0].update(score=1.5), id="a score over one"),
        pytest.param(lambda body: body["solutions"][0]["steps"][0].update(score=None), id="a score that is null"),
        pytest.param(lambda body: body.update(kind="judge"), id="an unknown kind"),
        pytest.param(lambda body: body.pop("usage"), id="no usage"),
        pytest.param(lambda body: body.update(extra=1), id="an unknown field"),
    ],
)
async def test_scores_outside_of_the_contract_are_refused(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(UpstreamContract):
        await scored(change)


async def test_scores_within_the_contract_are_taken() -> None:
    response, timings = await scored(lambda body: None, **{"x-queue-ms": "2.5", "x-batch-tokens": "64"})
    assert [len(s.steps) for s in response.solutions] == [2, 1]
    assert (timings.queue_ms, timings.batch_tokens, timings.inference_ms) == (2.5, 64, 0.0)


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "1e999", ""])
async def test_timings_inform_and_decide_nothing(value: str) -> None:
    response, timings = await scored(lambda body: None, **{"x-queue-ms": value, "x-batch-tokens": value})
    assert len(response.solutions) == 2
    assert (timings.queue_ms, timings.batch_tokens) == (0.0, 0)


@pytest.mark.parametrize(
    "client", [lambda h: generator_over(h, asgi=False), verifier_answering], ids=["generator", "verifier"]
)
async def test_a_service_that_serves_no_model_breaks_the_contract(client: Any) -> None:
    with pytest.raises(UpstreamContract):
        await client(lambda _: httpx2.Response(200, json={"object": "list", "data": []})).info()


# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_the_id_of_the_request_goes_with_it() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(500)

    set_request_id("req-7")
    with pytest.raises(UpstreamUnavailable):
        await verifier_answering(answer).score(SCORE)
    set_request_id("")
    assert (seen[0].headers["x-request-id"], seen[0].headers["content-type"]) == ("req-7", "application/json")


async def test_samples_are_always_asked_for_as_a_stream() -> None:
    generator = FakeGenerator(["x"])
    await everything(generator_over(generator_app(generator)), GenerateRequest(problem="p", n=1, stream=False))
    assert generator.requests[0].stream

"""`POST /v1/solve` as a stream over real sockets; and a closed socket, streamed or not, through every hop."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from services.core.contracts import CandidateEvent, ErrorEnvelope, ScoreEvent, SolveResponse, VoteEvent, Wire
from services.core.errors import ContextLengthExceeded, NotReady
from services.core.ports import Generator, Verifier
from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.transport import upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.runtime.sse import KEEP_ALIVE, kept_alive
from tests.fakes import FakeGenerator, FakeVerifier, solution, unreachable
from tests.serving import Address, all_in_one_app, eventually, generator_app, served, verifier_app

pytestmark = pytest.mark.timeout(60)

GOOD, BAD, OTHER = solution("42", "good"), solution("41", "bad"), solution("40", "other")
SOLVE, CHAT = "/v1/solve", "/v1/chat/completions"
EVENTS: dict[str, type[Wire]] = {
    "candidate": CandidateEvent,
    "score": ScoreEvent,
    "vote": VoteEvent,
    "result": SolveResponse,
    "error": ErrorEnvelope,
}


def body(route: str, n: int, **fields: Any) -> dict[str, Any]:
    if route == CHAT:
        messages = [{"role": "user", "content": "p"}]
        return {"model": "e2h", "messages": messages, "e2h": {"n": n}, **fields}
    return {"problem": "p", "n": n, **fields}


async def followed(app: FastAPI, **fields: Any) -> list[tuple[str, Wire]]:
    """The events of a streamed solve, each read as its contract type."""
    async with (
        served(app) as address,
        httpx2.AsyncClient(base_url=address.url) as client,
        client.stream("POST", SOLVE, json=body(SOLVE, stream=True, **fields)) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        source = httpx2.EventSource(response)
        return [(e.event, EVENTS[e.event].model_validate_json(e.data)) async for e in source]


async def test_a_stream_tells_samples_scores_and_votes_and_ends_with_the_result() -> None:
    told = await followed(all_in_one_app(FakeGenerator([GOOD, BAD, GOOD]), FakeVerifier()), n=3)
    names = [name for name, _ in told]
    assert (names.count("candidate"), names.count("score"), names.count("result")) == (3, 3, 1)
    assert names[0] == "candidate"
    assert names[-1] == "result"
    assert names.count("vote") >= 1
    result = told[-1][1]
    assert isinstance(result, SolveResponse)
    assert (result.answer, len(result.candidates)) == ("42", 3)


async def test_a_stream_stops_early_too() -> None:
    generator = FakeGenerator([GOOD], holds={9: asyncio.Event()})
    told = await followed(all_in_one_app(generator, FakeVerifier(lambda step: 1.0)), n=10, early_stop="lossless")
    result = told[-1][1]
    assert isinstance(result, SolveResponse)
    assert (result.stopped_early, result.answer, generator.cancelled) == (True, "42", 1)


async def test_a_fault_amid_a_stream_is_its_last_event() -> None:
    verifier = FakeVerifier(failure=unreachable())
    told = await followed(all_in_one_app(FakeGenerator([GOOD, BAD]), verifier), n=2)
    assert [name for name, _ in told][-1] == "error"
    fault = told[-1][1]
    assert isinstance(fault, ErrorEnvelope)
    assert (fault.error.code, fault.error.retryable) == ("upstream_unavailable", True)


@pytest.mark.parametrize(
    ("fault", "status"), [(NotReady("loading"), 503), (ContextLengthExceeded("900 of 512"), 422)], ids=["503", "422"]
)
async def test_a_fault_before_the_first_event_has_its_status(fault: Any, status: int) -> None:
    app = all_in_one_app(FakeGenerator([GOOD], failure=fault), FakeVerifier())
    async with served(app) as address, httpx2.AsyncClient(base_url=address.url) as client:
        response = await client.post(SOLVE, json=body(SOLVE, 2, stream=True))
    assert (response.status_code, response.json()["error"]["code"]) == (status, fault.code)


# --- keep-alive ------------------------------------------------------------------------------------------------------


async def _slow(*pauses_s: float) -> AsyncGenerator[bytes, None]:
    for place, pause in enumerate(pauses_s):
        await asyncio.sleep(pause)
        yield b"%d" % place


async def test_silence_is_filled_with_comments_and_nothing_is_lost() -> None:
    events = [event async for event in kept_alive(_slow(0.0, 0.2, 0.0), every_s=0.02)]
    assert [e for e in events if e != KEEP_ALIVE] == [b"0", b"1", b"2"]
    assert 1 <= events.count(KEEP_ALIVE) <= 20


async def test_closing_a_kept_alive_stream_closes_what_is_behind_it() -> None:
    closed = asyncio.Event()

    async def silent() -> AsyncGenerator[bytes, None]:
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            closed.set()

    async with aclosing(kept_alive(silent(), every_s=0.01)) as events:
        assert await anext(events) == KEEP_ALIVE
    assert closed.is_set()


# --- a closed socket -------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """Where the orchestrator listens, and the fakes at the far end."""

    address: Address
    generator: FakeGenerator
    verifier: FakeVerifier


def held_fakes() -> tuple[FakeGenerator, FakeVerifier]:
    """Two samples come and wait for their scores, the third never comes."""
    return FakeGenerator([GOOD, BAD, OTHER], holds={2: asyncio.Event()}), FakeVerifier(hold=asyncio.Event())


@asynccontextmanager
async def one_process() -> AsyncIterator[Stage]:
    generator, verifier = held_fakes()
    async with served(all_in_one_app(generator, verifier)) as address:
        yield Stage(address, generator, verifier)


@asynccontextmanager
async def three_services() -> AsyncIterator[Stage]:
    """Each service behind a socket of its own, with the real clients between them."""
    generator, verifier = held_fakes()
    async with AsyncExitStack() as stack:
        far = await stack.enter_async_context(served(generator_app(generator)))
        judge = await stack.enter_async_context(served(verifier_app(verifier)))
        options: dict[str, Any] = {"connect_timeout_s": 2.0, "read_timeout_s": 30.0}
        near: Generator = HttpGenerator(upstream("generator", far.url, **options))
        scorer: Verifier = HttpVerifier(upstream("verifier", judge.url, **options))
        stack.push_async_callback(near.close)  # type: ignore[attr-defined]
        stack.push_async_callback(scorer.close)  # type: ignore[attr-defined]
        address = await stack.enter_async_context(served(all_in_one_app(near, scorer)))
        yield Stage(address, generator, verifier)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", [SOLVE, CHAT])
@pytest.mark.parametrize("stage", [one_process, three_services])
async def test_a_closed_socket_stops_every_sample_and_every_score(
    stage: Callable[[], Any], route: str, stream: bool
) -> None:
    async with stage() as at:
        reader, writer = await asyncio.open_connection(at.address.host, at.address.port)
        content = json.dumps(body(route, 3, stream=stream)).encode()
        head = f"POST {route} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
        writer.write(head.encode() + b"\r\n\r\n" + content)
        assert await eventually(lambda: sum(len(each.solutions) for each in at.verifier.requests) == 2)
        if stream:
            await reader.readuntil(b"data: ")
        writer.close()
        assert await eventually(
            lambda: (at.generator.cancelled, at.verifier.cancelled) == (1, len(at.verifier.requests))
        )
        # The service takes work again, and counts nothing in flight but the question itself.
        assert await _in_flight(at.address) == 1.0


async def _in_flight(address: Address) -> float:
    async with httpx2.AsyncClient(base_url=address.url) as client:
        text = (await client.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("e2h_http_inflight")]
    return float(line.split()[-1])

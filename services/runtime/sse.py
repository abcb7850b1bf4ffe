"""Server-sent events out of contract types: encoding, keep-alive, and errors on either side of the first event."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import structlog
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from services.core.errors import E2HError, InternalError
from services.runtime.faults import envelope, log_cause

_log = structlog.get_logger("e2h.sse")

# Proxies and clients give up on a silent connection after half a minute or more.
KEEP_ALIVE_S = 10.0
KEEP_ALIVE = b": keep-alive\n\n"
_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
    "additionalProperties": False,
}
# What a route that can stream says of it in the OpenAPI page.
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"itemSchema": _EVENT}}},
}


class EventStream(EventSourceResponse):
    """A response of `events`, which are closed with the connection, wherever the sending stands."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


def encode_event(name: str, body: BaseModel) -> bytes:
    """One event on the wire.

    JSON escapes the line ends that separate fields (U+000A, U+000D), and they are the only ones that do; FastAPI's
    `format_sse_event` also breaks data at U+2028 and its like, which model text may hold.
    """
    return f"event: {name}\ndata: {body.model_dump_json()}\n\n".encode()


def encode_data(body: BaseModel) -> bytes:
    """One event without a name, as OpenAI's streams have them."""
    return f"data: {body.model_dump_json()}\n\n".encode()


async def kept_alive(events: AsyncGenerator[bytes, None], every_s: float = KEEP_ALIVE_S) -> AsyncGenerator[bytes, None]:
    """The same events, with a comment, which clients skip, after every silence of `every_s` seconds."""
    async with aclosing(events):
        following: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                following = following or asyncio.create_task(_next(events))
                await asyncio.wait({following}, timeout=every_s)
                if not following.done():
                    yield KEEP_ALIVE
                    continue
                finished, following = following, None
                if (event := finished.result()) is None:
                    return
                yield event
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


async def _next(events: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(events, None)


async def guarded(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same events, with faults told the way the moment allows.

    An `E2HError` before the first event is raised here, so that the response still gets its status; any fault after
    it becomes a last `error` event.
    """
    try:
        first = await anext(events)
    except StopAsyncIteration:
        raise InternalError("internal error; the log has the request id") from None
    return _rest(first, events)


async def _rest(first: bytes, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event
    except E2HError as error:
        log_cause(error)
        yield error_event(error)
    except Exception:
        _log.exception("unhandled")
        yield error_event(InternalError("internal error; the log has the request id"))


def error_event(error: E2HError) -> bytes:
    """The last event of a stream that a fault ends."""
    return encode_event("error", envelope(error))

"""Server-sent events out of contract types: encoding, and errors on either side of the first event."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from pydantic import BaseModel

from services.core.errors import E2HError, InternalError
from services.runtime.faults import envelope, log_cause

_log = structlog.get_logger("e2h.sse")


def encode_event(name: str, body: BaseModel) -> bytes:
    """One event on the wire.

    JSON escapes the line ends that separate fields (U+000A, U+000D), and they are the only ones that do; FastAPI's
    `format_sse_event` also breaks data at U+2028 and its like, which model text may hold.
    """
    return f"event: {name}\ndata: {body.model_dump_json()}\n\n".encode()


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

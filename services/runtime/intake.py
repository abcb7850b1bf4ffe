"""How much of a body is read and for how long: an ASGI layer before every route. Knows no content.

Bytes are counted whether or not a length was declared, and the body as a whole has a time to arrive, so that one that
comes a byte a second holds nothing for long. What comes before the body is bounded in `protocol.py`.
"""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.errors import BodyTooLarge, DeadlineExceeded, RequestTooSlow
from services.runtime import context


class BodyLimits:
    """Pure ASGI middleware. Raises `BodyTooLarge`, `RequestTooSlow` or `DeadlineExceeded` where the body is read."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared_length(scope) > self._max_bytes:
            raise _too_large(self._max_bytes)
        await self._app(scope, _Intake(receive, self._max_bytes, self._timeout_s).receive, send)


class _Intake:
    """One body on its way in."""

    def __init__(self, receive: Receive, max_bytes: int, timeout_s: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s
        self._bytes = 0
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:  # what comes now is the caller's leaving, for which one may wait
            return await self._receive()
        message = await self._in_time()
        if message["type"] != "http.request":
            return message
        self._bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        return message

    async def _in_time(self) -> Message:
        left = min(self._ends, context.deadline()) - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self._receive()
        except TimeoutError:
            # By which of the two was nearer: a timer of the event loop may fire a moment before the deadline.
            if context.deadline() <= self._ends:
                raise DeadlineExceeded("the request's time budget ran out") from None
            raise RequestTooSlow(f"the body did not arrive within {self._timeout_s:g} s") from None


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body exceeds {limit} bytes")

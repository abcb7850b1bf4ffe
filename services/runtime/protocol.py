"""uvicorn's HTTP/1.1 connection with the bounds it lacks: size and time of a request's head, time of an unread body.

httptools reads headers of any size, and uvicorn gives a connection that has sent half a head all the time in the
world. Both are answered here, in the error envelope, before the app is asked.
"""

import asyncio
import contextvars
from collections.abc import Callable
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from services.core.errors import E2HError, HeadersTooLarge, InvalidHttp, RequestTooSlow
from services.runtime import context
from services.runtime.faults import error_response
from services.runtime.security_headers import with_security_headers

# Request line and headers together. An honest head has a few kB; the longest that is honest is one of cookies.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
# A connection that was made just before the end of a service has this long to ask.
_FIRST_WORD_S = 0.5


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. `head_timeout_s` bounds the time from the first byte of a request to the end of its headers."""

    head_timeout_s = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._refusal: E2HError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._leaving = False
        self._in_head = self._in_message = False
        self._head_bytes = self._unended_bytes = 0
        self._arm(self.head_timeout_s, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._in_head
        super().data_received(data)
        # Headers that are complete were counted one by one; this is for one that does not end.
        if before and self._in_head and self._refusal is None:
            self._unended_bytes += len(data)
            if self._unended_bytes > MAX_HEAD_BYTES:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head_bytes = self._unended_bytes = 0
        self._arm(self.head_timeout_s, self._head_too_slow)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if self._in_head:  # what follows a chunked body is no header of the request
            super().on_header(name, value)
            if len(self.headers) > MAX_HEADERS:
                self._stop(_too_large())

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._in_message = False
        answered = self.cycle is not None and self.cycle.response_complete
        super().on_message_complete()
        if answered:  # uvicorn's own timer ended with the first byte of the rest
            self._arm(self.timeout_keep_alive, self.transport.close)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_message and not self.transport.is_closing():
            self._arm(self.timeout_keep_alive, self.transport.close)

    def shutdown(self) -> None:
        """As uvicorn's, but a request whose head is arriving is answered, and a new connection may still ask."""
        self._leaving = True
        if self.cycle is None and not self._in_head:
            self._arm(_FIRST_WORD_S, self.transport.close)
        elif not self._in_head:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up: because we told it to, or because it was no HTTP."""
        self._refuse(self._refusal or InvalidHttp("this is not an HTTP request"))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop(_too_large())

    def _stop(self, error: E2HError) -> None:
        """End the parsing: an exception in a callback makes the parser fail, and uvicorn ask for the answer."""
        self._refusal = error
        raise error

    def _head_too_slow(self) -> None:
        if self._in_head:
            self._refuse(RequestTooSlow(f"the headers did not arrive within {self.head_timeout_s:g} s"))
        else:
            self.transport.close()

    def _refuse(self, error: E2HError) -> None:
        self._refusal = error
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(contextvars.Context().run(_rendered, error))
            self.transport.close()

    def _arm(self, delay_s: float, then: Callable[[], object]) -> None:
        self._disarm()
        self._timer = self.loop.call_later(delay_s, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def bounded_protocol(head_timeout_s: float) -> type[BoundedHttpProtocol]:
    """The class of connections whose heads have this long to arrive."""
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), {"head_timeout_s": head_timeout_s})


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"the headers exceed {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} in number")


def _rendered(error: E2HError) -> bytes:
    """The whole response on the wire, under an id of its own."""
    context.set_request_id(uuid4().hex)
    response = error_response(error)
    headers = with_security_headers([*response.raw_headers, (b"x-request-id", context.request_id().encode())], "")
    fields = [(name, value) for name, value in headers if name != b"connection"] + [(b"connection", b"close")]
    lines = [STATUS_LINE[error.status], *(b"%s: %s\r\n" % field for field in fields), b"\r\n"]
    return b"".join([*lines, bytes(response.body)])

"""The outermost ASGI layer of every service: request id in and out, one log line, metrics, security headers.

It answers what the layers below it raise (no key, over the rate, too slow), 500 for our bugs, and whoever is still
being answered when the drain time-out ends: a stream gets a last `error` event, anyone else 503.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Callable

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.errors import Draining, E2HError, InternalError
from services.runtime import context
from services.runtime.addresses import network_of
from services.runtime.budget import MAX_TIMEOUT_MS, TIMEOUT_HEADER, read_budget
from services.runtime.faults import error_response
from services.runtime.metrics import UNKNOWN_ROUTE, HttpMetrics
from services.runtime.security_headers import with_security_headers
from services.runtime.sse import error_event

_log = structlog.get_logger("e2h.http")
# Anything else (control characters, 10 kB of text) is replaced, so that a log line stays one line.
_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._\-]{1,128}")
_QUIET = {"/health", "/ready", "/metrics"}


class RequestContext:
    """Pure ASGI middleware, so that streams pass through it untouched."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, draining: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        current = _accepted_id(scope) or uuid.uuid4().hex
        context.set_request_id(current)
        context.set_tenant(network_of(scope))  # until a key tells
        structlog.contextvars.bind_contextvars(request_id=current)
        exchange = _Exchange(send, scope["path"], current, self._draining)
        began = time.perf_counter()
        with self._metrics.inflight.track_inprogress():
            await self._answer(scope, receive, exchange)
        self._record(scope, exchange.status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            exchange.clamped = read_budget(scope["headers"])
            await self._app(scope, receive, exchange.send)
        except E2HError as error:  # of the headers and the layers below; the app answers its own
            await exchange.fail(scope, receive, error)
        except asyncio.CancelledError:
            await exchange.cut(scope, receive, Draining("the service is stopping"))
            if not self._draining():  # then it is not the server that cuts what still runs
                raise
        except ClientDisconnect:
            pass  # nobody is there to be told; the status says so
        except Exception:
            _log.exception("unhandled")
            await exchange.fail(scope, receive, InternalError("internal error; the log has the request id"))

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        self._metrics.observe(route, scope["method"], status, seconds)
        level = "debug" if route in _QUIET else "info"
        getattr(_log, level)(
            "request", route=route, method=scope["method"][:16], status=status, ms=round(seconds * 1000, 1)
        )


class _Exchange:
    """One response on its way out: adds headers, remembers the status and how far it is."""

    def __init__(self, send: Send, path: str, current: str, draining: Callable[[], bool]) -> None:
        self._send = send
        self._path = path
        self._id = current.encode("ascii")
        self._draining = draining
        self._streams = False
        self._complete = False
        self.status = 499  # the caller left before an answer began
        self.clamped = False  # the time budget was cut to the longest, which is told

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            self._streams = dict(headers).get(b"content-type", b"").startswith(b"text/event-stream")
            message = {**message, "headers": with_security_headers([*headers, *self._own_headers()], self._path)}
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def fail(self, scope: Scope, receive: Receive, error: E2HError) -> None:
        """Answer with the error, where no answer has begun."""
        if self.status == 499:
            await error_response(error)(scope, receive, self.send)

    async def cut(self, scope: Scope, receive: Receive, error: E2HError) -> None:
        """End now. What was sent of a stream is followed by the reason; half of anything else is not made whole."""
        if self.status == 499:
            await self.fail(scope, receive, error)
        elif self._streams and not self._complete:
            await self.send({"type": "http.response.body", "body": error_event(error)})

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self._id)]
        if self.clamped:
            headers.append((TIMEOUT_HEADER.encode(), str(MAX_TIMEOUT_MS).encode()))
        if self._draining():  # so that nobody sends another request on a connection that is about to close
            headers.append((b"connection", b"close"))
        return headers


def _accepted_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTABLE.fullmatch(value):
            return bytes(value).decode("ascii")
    return None

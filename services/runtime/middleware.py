"""The outermost ASGI layer of every service: request id in and out, one log line, metrics, 500 for our bugs."""

import asyncio
import re
import time
import uuid

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.errors import Draining, E2HError, InternalError, InvalidRequest
from services.runtime import context
from services.runtime.budget import read_budget
from services.runtime.faults import error_response
from services.runtime.metrics import UNKNOWN_ROUTE, HttpMetrics

_log = structlog.get_logger("e2h.http")
# Anything else (control characters, 10 kB of text) is replaced, so that a log line stays one line.
_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._\-]{1,128}")
_QUIET = {"/health", "/ready", "/metrics"}


class RequestContext:
    """Pure ASGI middleware, so that streams pass through it untouched."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        current = _accepted_id(scope) or uuid.uuid4().hex
        context.set_request_id(current)
        structlog.contextvars.bind_contextvars(request_id=current)
        exchange = _Exchange(send, current)
        began = time.perf_counter()
        with self._metrics.inflight.track_inprogress():
            try:
                read_budget(scope["headers"])
                await self._app(scope, receive, exchange.send)
            except InvalidRequest as error:  # of the headers; the app answers its own
                await exchange.fail(scope, receive, error)
            except asyncio.CancelledError:
                # The server's drain time-out cuts what still runs.
                await exchange.fail(scope, receive, Draining("the service is stopping"))
                raise
            except ClientDisconnect:
                pass  # nobody is there to be told; the status says so
            except Exception:
                _log.exception("unhandled")
                await exchange.fail(scope, receive, InternalError("internal error; the log has the request id"))
        self._record(scope, exchange.status, time.perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        self._metrics.observe(route, scope["method"], status, seconds)
        level = "debug" if route in _QUIET else "info"
        getattr(_log, level)(
            "request", route=route, method=scope["method"][:16], status=status, ms=round(seconds * 1000, 1)
        )


class _Exchange:
    """One response on its way out: adds the id header, remembers the status."""

    def __init__(self, send: Send, current: str) -> None:
        self._send = send
        self._header = (b"x-request-id", current.encode("ascii"))
        self.status = 499  # the caller left before an answer began

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        await self._send(message)

    async def fail(self, scope: Scope, receive: Receive, error: E2HError) -> None:
        if self.status == 499:
            await error_response(error)(scope, receive, self.send)


def _accepted_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTABLE.fullmatch(value):
            return bytes(value).decode("ascii")
    return None

"""`Idempotency-Key`: a request that is sent again is answered, not executed, again. Knows bodies and answers, no route.

The same key while the first request runs waits for that one's answer; after it, the answer that is kept is sent. Kept
are answers alone: whatever was refused or failed may be tried again. They are kept in this process, and where there is
a redis, there as well, so that another process, or this one after a restart, knows them.
"""

import asyncio
import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from fastapi import Request
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, ConfigDict, ValidationError
from redis.exceptions import RedisError
from starlette.responses import Response
from starlette.routing import BaseRoute

from services.core.errors import DeadlineExceeded, IdempotencyMismatch, InvalidRequest
from services.runtime import context
from services.runtime.auth import caller_of
from services.runtime.bodies import while_connected
from services.runtime.redis import Presence, connect, trouble
from services.runtime.settings import RuntimeSettings

_log = structlog.get_logger("e2h.idempotency")
HEADER = "idempotency-key"
# Merge it into the `openapi_extra` of each route that takes a key: it stands in OpenAPI, and has the answers kept.
PARAMETER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "description": "A request with the same key and the same body is answered as the first was, and executed once.",
}
_KEY = re.compile(rb"[!-~]{1,255}")
_PREFIX = "e2h:idempotency:1:"
# What an entry takes beside its answer.
_ENTRY_BYTES = 512
# One answer takes no more than this part of the room.
_LARGEST = 1 / 8
Work = Callable[[], Coroutine[Any, Any, Response]]


class _Kept(BaseModel):
    """An answer and whose request it answers. In redis it stands as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    fingerprint: str
    status: int
    body: str

    def response(self, *, replayed: bool) -> Response:
        headers = {"idempotent-replayed": "true"} if replayed else None
        return Response(self.body, self.status, headers, media_type="application/json")


@dataclass(eq=False)
class _Running:
    fingerprint: str
    task: asyncio.Task[_Kept]
    waiting: int = 0


def takes_keys(route: BaseRoute) -> bool:
    """Whether the route says that it takes an `Idempotency-Key`."""
    return isinstance(route, APIRoute) and PARAMETER in (route.openapi_extra or {}).get("parameters", [])


async def once(request: Request, body: BaseModel, work: Work) -> Response:
    """The response of `work`, which is executed at most once for an `Idempotency-Key` and ends when all callers left.

    `work` answers with JSON below 400, or raises. Raises what it raises; `InvalidRequest` for a key that is none;
    `IdempotencyMismatch` for a key that came with another body; `ClientDisconnect` when the caller is gone.
    """
    key = key_of(request)
    if key is None:
        return await while_connected(request, work())
    kept: IdempotentAnswers = request.app.state.idempotency
    name, fingerprint = _name(request, key), _digest(body.model_dump_json())
    return await while_connected(request, kept.answer(name, fingerprint, work))


def key_of(request: Request) -> str | None:
    """The request's key. Raises `InvalidRequest` for what is none."""
    given = [value for name, value in request.scope["headers"] if name == HEADER.encode()]
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise InvalidRequest("the key is 1 to 255 printable ASCII characters without blanks, once", param=HEADER)
    return bytes(given[0]).decode("ascii")


def refuse_key(request: Request, why: str) -> None:
    """Raises `InvalidRequest` when the request has a key, which this kind of answer cannot honour."""
    if key_of(request) is not None:
        raise InvalidRequest(why, param=HEADER, code="unsupported_parameter")


class IdempotentAnswers:
    """Answers by name, bounded in bytes and time, oldest dropped first; and the executions that run."""

    def __init__(self, settings: RuntimeSettings, registry: CollectorRegistry) -> None:
        self._ttl_s = settings.idempotency_ttl_s
        self._room = settings.idempotency_max_bytes
        self._timeout_s = settings.redis_timeout_ms / 1000
        self._kept: OrderedDict[str, tuple[float, _Kept]] = OrderedDict()  # with the time when each is forgotten
        self._bytes = 0
        self._running: dict[str, _Running] = {}
        self._redis = None if settings.redis_url is None else connect(settings.redis_url, timeout_s=self._timeout_s)
        self._presence = None if self._redis is None else Presence(self._redis, self._timeout_s)
        self._requests = Counter(
            "e2h_idempotent_requests_total",
            "Requests with a key: executed, joined (waited for the same one), replayed, mismatch",
            ("outcome",),
            registry=registry,
        )
        self._faults = Counter("e2h_idempotency_redis_faults_total", "Answers known here alone", registry=registry)

    async def answer(self, name: str, fingerprint: str, work: Work) -> Response:
        """The answer that `name` has, or that `work` gives it."""
        kept = None if name in self._running else self._here(name) or await self._elsewhere(name)
        # Redis took its time: the answer may have come meanwhile, or be on its way.
        kept = kept or self._here(name)
        if kept is not None:
            self._require_same(kept.fingerprint, fingerprint)
            self._requests.labels("replayed").inc()
            return kept.response(replayed=True)
        running = self._running.get(name)
        if running is None:
            running = _Running(fingerprint, asyncio.create_task(self._execute(name, fingerprint, work)))
            self._running[name] = running
            self._requests.labels("executed").inc()
            return (await self._join(name, running)).response(replayed=False)
        self._require_same(running.fingerprint, fingerprint)
        self._requests.labels("joined").inc()
        return (await self._join(name, running)).response(replayed=True)

    async def ready(self) -> str | None:
        """None when redis answers, or none is set."""
        reason = None if self._redis is None else await trouble(self._redis)
        return None if reason is None else "idempotency: redis does not answer; each process knows its own answers"

    async def close(self) -> None:
        if self._redis is not None and self._presence is not None:
            await self._presence.close()
            await self._redis.aclose()
            await self._redis.connection_pool.disconnect()

    def _require_same(self, known: str, fingerprint: str) -> None:
        if known != fingerprint:
            self._requests.labels("mismatch").inc()
            raise IdempotencyMismatch("this key came with another body before", param=HEADER)

    async def _execute(self, name: str, fingerprint: str, work: Work) -> _Kept:
        response = await work()
        kept = _Kept(fingerprint=fingerprint, status=response.status_code, body=bytes(response.body).decode())
        if _size(kept) <= self._room * _LARGEST:
            self._keep(name, kept)
            await self._on_redis("set", name, kept.model_dump_json())
        return kept

    async def _join(self, name: str, running: _Running) -> _Kept:
        """What the execution gives. It is cancelled when nobody waits for it any more."""
        running.waiting += 1
        left = context.time_left()
        try:
            await asyncio.wait({running.task}, timeout=None if math.isinf(left) else max(0.0, left))
            if not running.task.done():
                raise DeadlineExceeded("the request's time budget ran out")
            return running.task.result()
        finally:
            running.waiting -= 1
            if not running.waiting:
                if self._running.get(name) is running:
                    del self._running[name]
                running.task.cancel()
                await asyncio.gather(running.task, return_exceptions=True)

    def _here(self, name: str) -> _Kept | None:
        until, kept = self._kept.get(name, (0.0, None))
        return kept if time.monotonic() < until else None

    def _keep(self, name: str, kept: _Kept) -> None:
        now = time.monotonic()
        self._drop(name)
        self._kept[name] = (now + self._ttl_s, kept)
        self._bytes += _size(kept)
        # All live equally long, so the oldest is the first to be forgotten either way.
        while self._kept:
            oldest = next(iter(self._kept))
            if self._bytes <= self._room and now < self._kept[oldest][0]:
                break
            self._drop(oldest)

    def _drop(self, name: str) -> None:
        if name in self._kept:
            self._bytes -= _size(self._kept.pop(name)[1])

    async def _elsewhere(self, name: str) -> _Kept | None:
        found = await self._on_redis("get", name)
        try:
            return None if found is None else _Kept.model_validate_json(found)
        except ValidationError:
            return None

    async def _on_redis(self, operation: Literal["get", "set"], name: str, value: str = "") -> bytes | str | None:
        """None when redis knows nothing, or is not there to ask."""
        if self._redis is None or self._presence is None or not self._presence.there:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                if operation == "set":
                    await self._redis.set(_PREFIX + name, value, px=math.ceil(self._ttl_s * 1000))
                    return None
                found: bytes | str | None = await self._redis.get(_PREFIX + name)
                return found
        except (RedisError, OSError, TimeoutError) as error:
            self._presence.lost()
            self._faults.inc()
            _log.warning("redis", fault=type(error).__name__)
            return None


def _name(request: Request, key: str) -> str:
    """What an answer is kept under: no text of a caller, and nothing that one tenant could guess of another's."""
    caller = caller_of(request.scope)
    tenant = "" if caller is None else caller.tenant
    return _digest(f"{tenant}\n{request.scope['path']}\n{key}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _size(kept: _Kept) -> int:
    return len(kept.body) + _ENTRY_BYTES

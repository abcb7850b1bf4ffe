"""RedisScoreCache: scores of solutions that were scored before, in redis, shared by every verifier of the same model.

It fails open. A cache that is down, slow, full or holds nonsense knows nothing and keeps nothing: scoring goes on.
After a failure the operation is left alone for a second, then one caller tries, so that not every request pays the
time-out.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.core.contracts import Probability, Wire
from services.core.ports import KnownScores, ScoreCache
from services.runtime.redis import connect, shown, trouble
from services.verifier.settings import VerifierSettings

_log = structlog.get_logger("e2h.verifier.cache")
_PREFIX = "e2h:score:1:"
_PAUSE_S = 1.0
_LOST = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)
Result = TypeVar("Result")


class _Entry(Wire):
    """A value in redis, as JSON. A value that does not validate, a NaN above all, is a miss."""

    v: Literal[1] = 1
    steps: list[Probability]
    outcome: Probability | None


class CacheMetrics:
    """Hits and misses by solution; failures by operation."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lookups = Counter(
            "e2h_verifier_cache_lookups_total",
            "Solutions looked up: hit, miss, or skipped while the cache is left alone",
            ("result",),
            registry=registry,
        )
        self._failures = Counter(
            "e2h_verifier_cache_failures_total",
            "Operations that failed: lost (no answer in time, no connection) or refused (redis answered an error)",
            ("operation", "cause"),
            registry=registry,
        )

    def looked_up(self, result: Literal["hit", "miss", "skipped"], solutions: int) -> None:
        self._lookups.labels(result).inc(solutions)

    def failed(self, operation: str, cause: Literal["lost", "refused"]) -> None:
        self._failures.labels(operation, cause).inc()


class _Gate:
    """Whether an operation is worth a try: not within a second of a failure, and then for one caller at a time."""

    def __init__(self) -> None:
        self._again_at: float | None = None

    def admits(self) -> bool:
        if self._again_at is None:
            return True
        now = time.monotonic()
        if now < self._again_at:
            return False
        self._again_at = now + _PAUSE_S
        return True

    def close(self) -> bool:
        """After a failure. Whether it was open."""
        was_open = self._again_at is None
        self._again_at = time.monotonic() + _PAUSE_S
        return was_open

    def open(self) -> bool:
        """After a success. Whether it was closed."""
        was_closed = self._again_at is not None
        self._again_at = None
        return was_closed


class RedisScoreCache:
    """A `ScoreCache` in redis: one MGET a lookup, one pipeline of SETs with a lifetime of `ttl_s`."""

    def __init__(self, client: Redis, where: str, metrics: CacheMetrics, *, ttl_s: int, timeout_s: float) -> None:
        """`where` names the server in the log and must hold no password."""
        self._client = client
        self._where = where
        self._metrics = metrics
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        # Two, for a redis that is full still answers reads.
        self._gates = {"get": _Gate(), "set": _Gate()}

    async def get(self, keys: Sequence[str]) -> list[KnownScores | None]:
        nothing: list[KnownScores | None] = [None] * len(keys)
        if not keys:
            return nothing
        values = await self._attempt("get", lambda: self._client.mget([_PREFIX + key for key in keys]))
        if not isinstance(values, list) or len(values) != len(keys):
            self._metrics.looked_up("skipped", len(keys))
            return nothing
        found = [_decode(value) for value in values]
        hits = sum(scores is not None for scores in found)
        self._metrics.looked_up("hit", hits)
        self._metrics.looked_up("miss", len(found) - hits)
        return found

    async def put(self, entries: Mapping[str, KnownScores]) -> None:
        if not entries:
            return
        # No transaction: each value is right by itself.
        pipeline = self._client.pipeline(transaction=False)
        for key, scores in entries.items():
            pipeline.set(_PREFIX + key, _encode(scores), ex=self._ttl_s)
        await self._attempt("set", pipeline.execute)

    async def ready(self) -> str | None:
        reason = await trouble(self._client)
        return None if reason is None else f"redis: the score cache does not answer ({reason})"

    async def close(self) -> None:
        await self._client.aclose()

    async def _attempt(self, operation: str, work: Callable[[], Awaitable[Result]]) -> Result | None:
        """The result of `work`, or None when it failed, took too long or is not to be tried yet."""
        gate = self._gates[operation]
        if not gate.admits():
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await work()
        except Exception as error:  # what answers there may be no redis, and its nonsense raises anything
            self._failed(operation, error)
            return None
        if gate.open():
            _log.info("the score cache works again", cache=self._where, operation=operation)
        return result

    def _failed(self, operation: str, error: Exception) -> None:
        lost = isinstance(error, _LOST)
        self._metrics.failed(operation, "lost" if lost else "refused")
        closing = list(self._gates.values()) if lost else [self._gates[operation]]
        were_open = [gate.close() for gate in closing]
        if any(were_open):
            _log.warning(
                "the score cache failed; scoring goes on without it",
                cache=self._where,
                operation=operation,
                cause=type(error).__name__,
            )


def build_score_cache(settings: VerifierSettings, registry: CollectorRegistry) -> ScoreCache | None:
    """The cache that the settings name; None when they name none."""
    if settings.cache_url is None:
        return None
    timeout_s = settings.cache_timeout_ms / 1000
    return RedisScoreCache(
        connect(settings.cache_url, timeout_s=timeout_s),
        shown(settings.cache_url),
        CacheMetrics(registry),
        ttl_s=settings.cache_ttl_s,
        timeout_s=timeout_s,
    )


def _encode(scores: KnownScores) -> bytes:
    return _Entry(steps=list(scores.steps), outcome=scores.outcome).model_dump_json().encode()


def _decode(value: bytes | str | None) -> KnownScores | None:
    if value is None:
        return None
    try:
        entry = _Entry.model_validate_json(value)
    except ValidationError:
        return None
    return KnownScores(tuple(entry.steps), entry.outcome)

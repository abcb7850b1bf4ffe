"""How often a caller may ask: a moving window for each tenant, or for each address where no keys are asked for.

The windows are in redis when there is one, on its clock, so that all processes count together; else in this process. A
redis that is slow or down is done without until it answers again: this process then counts alone, so a limit may be
passed by as many times as there are processes, and nobody is refused, or waits, for redis' sake.
"""

import asyncio
import time

import structlog
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.errors import RateLimited
from services.runtime.addresses import network_of
from services.runtime.auth import OPEN_PATHS, caller_of
from services.runtime.keys import parse_rate
from services.runtime.redis import Presence, connect, trouble
from services.runtime.settings import RuntimeSettings

_log = structlog.get_logger("e2h.limits")
_SWEEP_EVERY_S = 30.0
_KEY_PREFIX = "e2h:limits:2"
# A moving window as the newest moments, newest first. `limits` has the same, but sends the moment of the host: hosts
# whose clocks differ then count apart. ARGV: requests, milliseconds. Returns 0 when it is counted, else milliseconds
# until there is room.
_COUNT = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local oldest = redis.call('LINDEX', KEYS[1], ARGV[1] - 1)
if oldest and oldest + ARGV[2] > now then return oldest + ARGV[2] - now end
redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
redis.call('LTRIM', KEYS[1], 0, ARGV[1] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
"""
_FREE = OPEN_PATHS | {"/metrics"}


class RateLimiter:
    """Moving windows by name."""

    def __init__(self, settings: RuntimeSettings, registry: CollectorRegistry) -> None:
        self._timeout_s = settings.redis_timeout_ms / 1000
        self._memory = MemoryStorage()
        self._alone = MovingWindowRateLimiter(self._memory)
        self._pause: asyncio.Task[None] | None = None
        self._redis: Redis | None = None
        if settings.redis_url is not None:
            self._redis = connect(settings.redis_url, timeout_s=self._timeout_s)
            self._presence = Presence(self._redis, self._timeout_s)
            self._count = self._redis.register_script(_COUNT)
        self._refused = Counter("e2h_rate_limited_total", "Requests over their caller's rate", registry=registry)
        self._faults = Counter("e2h_rate_limit_redis_faults_total", "Windows counted here alone", registry=registry)

    async def admit(self, rate: RateLimitItem, name: str) -> None:
        """Count one request. Raises `RateLimited` with the wait when the window is full."""
        wait = await self._shared_wait(rate, name)
        if wait is None:
            self._space_sweeps()
            wait = await _wait(self._alone, rate, name)
        if wait > 0:
            self._refused.inc()
            raise RateLimited(f"more than {rate.amount} requests in {rate.get_expiry()} s", retry_after_s=wait)

    async def ready(self) -> str | None:
        """None when redis answers, or none is set."""
        if self._redis is None:
            return None
        reason = await trouble(self._redis)
        return None if reason is None else "rate limits: redis does not answer; each process counts alone"

    async def close(self) -> None:
        if self._memory.timer is not None:
            self._memory.timer.cancel()
        if self._redis is not None:
            await self._presence.close()
            await self._redis.aclose()
            await self._redis.connection_pool.disconnect()

    def _space_sweeps(self) -> None:
        """The library sweeps old windows whenever one is asked and no sweep runs, with a thread's hop for each window.

        Between two sweeps, its timer is a task that sleeps. Old entries do not count; they only take room.
        """
        timer = self._memory.timer
        if timer is None or (timer.done() and timer is not self._pause):
            self._pause = self._memory.timer = asyncio.create_task(asyncio.sleep(_SWEEP_EVERY_S))

    async def _shared_wait(self, rate: RateLimitItem, name: str) -> float | None:
        """`_wait` as redis knows it; None when it is not there to ask."""
        if self._redis is None or not self._presence.there:
            return None
        window_s = rate.get_expiry()
        key = f"{_KEY_PREFIX}:{rate.amount}/{window_s}:{name}"
        try:
            async with asyncio.timeout(self._timeout_s):
                wait_ms = await self._count(keys=[key], args=[rate.amount, window_s * 1000])
        except (RedisError, OSError, TimeoutError) as error:
            self._presence.lost()
            self._faults.inc()
            _log.warning("redis", fault=type(error).__name__)
            return None
        return 0.0 if not wait_ms else max(1.0, int(wait_ms) / 1000)


class RateLimits:
    """Pure ASGI middleware after `Authentication`. Raises `RateLimited`."""

    def __init__(self, app: ASGIApp, limiter: RateLimiter, default: str | None) -> None:
        self._app = app
        self._limiter = limiter
        self._default = None if default is None else parse_rate(default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _FREE:
            rate, name = self._window(scope)
            if rate is not None:
                await self._limiter.admit(rate, name)
        await self._app(scope, receive, send)

    def _window(self, scope: Scope) -> tuple[RateLimitItem | None, str]:
        """A key's own rate is counted for the key; the default for the tenant with all its keys, or the address."""
        caller = caller_of(scope)
        if caller is None:
            return self._default, f"address:{network_of(scope)}"
        if caller.rate is not None:
            return parse_rate(caller.rate), f"key:{caller.prefix}"
        return self._default, f"tenant:{caller.tenant}"


async def _wait(limiter: MovingWindowRateLimiter, rate: RateLimitItem, name: str) -> float:
    """0 when the request is counted, else seconds until the window has room."""
    if await limiter.hit(rate, name):
        return 0.0
    window = await limiter.get_window_stats(rate, name)
    return max(1.0, window.reset_time - time.time())

"""What cancelled jobs leave at the results place, removed once nobody works on them. Knows redis and the place.

Whoever settles an item of a cancelled job puts the job here again (`scripts.py`), so a part that comes late is removed
too, whoever wrote it.
"""

import asyncio
from typing import Any

import structlog
from redis.asyncio import Redis

from services.orchestrator.jobs import scripts
from services.orchestrator.jobs.faults import redis_faults
from services.orchestrator.jobs.results import discard, place_of
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.store import LEAVINGS, job_key

_log = structlog.get_logger("e2h.jobs")
_AT_ONCE = 100
_TRIED_AGAIN_MS = 60_000  # by another, when who began to remove is not heard of

# KEYS: job, cancelled jobs with something to remove. ARGV: job id, milliseconds until another may try. Returns '' while
# somebody holds an item of it or another removes, else what `_REMOVED` wants to be shown.
_LEAVE = (
    "#!lua flags=allow-oom\n"
    + scripts.PRELUDE
    + """
local due, status, t = redis.call('ZSCORE', KEYS[2], ARGV[1]), get('status'), now()
if not due or tonumber(due) > t then return '' end
if status and status ~= 'cancelled' then redis.call('ZREM', KEYS[2], ARGV[1]); return '' end
for _, item in ipairs(redis.call('ZRANGEBYSCORE', k .. ':leases', '-inf', t)) do let_go(item) end
if redis.call('ZCARD', k .. ':leases') > 0 then return '' end
local leave = string.format('%.0f', t + ARGV[2])
redis.call('ZADD', KEYS[2], leave, ARGV[1])
return leave
"""
)

# KEYS: cancelled jobs with something to remove. ARGV: job id, what `_LEAVE` returned. A job that was put there anew
# meanwhile stays.
_REMOVED = """#!lua flags=allow-oom
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
if due and tonumber(due) == tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
"""


class Leavings:
    """The places of cancelled jobs."""

    def __init__(self, redis: Redis, settings: JobSettings) -> None:
        self._redis = redis
        self._results_url = settings.results_url or ""
        self._leave = redis.register_script(_LEAVE)
        self._removed = redis.register_script(_REMOVED)

    async def remove_all(self) -> None:
        """Remove what nobody works on. Raises `UpstreamUnavailable` when redis does not answer."""
        with redis_faults():
            due: Any = await self._redis.zrange(LEAVINGS, 0, _AT_ONCE - 1)
        for job in due:
            await self.remove(job.decode())

    async def remove(self, job: str) -> None:
        """Remove the place of one job, if it is cancelled and no item of it is held; else it is left to others."""
        with redis_faults():
            leave = await self._leave(keys=[job_key(job), LEAVINGS], args=[job, _TRIED_AGAIN_MS])
        if not leave:
            return
        try:
            await asyncio.to_thread(discard, place_of(self._results_url, job))
        except OSError as error:  # tried again by whoever looks next
            _log.warning("leavings", job=job, fault=type(error).__name__, errno=error.errno)
            return
        with redis_faults():
            await self._removed(keys=[LEAVINGS], args=[job, leave])

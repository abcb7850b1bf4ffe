"""The state of jobs in redis: who holds which item until when, what is done, what happened. No problem, no sample."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from services.core.contracts import ENDED, Job, JobError, JobProgress
from services.core.errors import NotFound, NotReady, UpstreamUnavailable
from services.orchestrator.jobs import scripts
from services.orchestrator.jobs.faults import redis_faults
from services.orchestrator.jobs.fields import VERSION, NewJob, fields_of, flat, job_of, progress_of, texts
from services.orchestrator.jobs.settings import JobSettings

PREFIX = "e2h:jobs"
QUEUE_NAMESPACE = f"{PREFIX}:queue"
QUEUE = "items"
FINISH = "finish"  # the item that makes one table of all parts
LEAVINGS = f"{PREFIX}:leavings"  # cancelled jobs whose files are still to be removed
_RUNNING = f"{PREFIX}:running"
_QUEUE_LIST = f"{QUEUE_NAMESPACE}:{QUEUE}"

_KEY_REMEMBERED_S = 24 * 3600
_LISTED = 100

_EVENTS_AT_ONCE = 100

How = Literal["done", "put_off", "failed", "given_up", "given_back", "abort"]
Became = Literal["done", "retried", "waiting", "given_up", "ended", "lost", "fenced"]
Held = Literal["ok", "lost", "ended", "fenced"]


@dataclass(frozen=True, slots=True)
class Offered:
    """What one look at a job found: leases that ran out, items given up for it, items that want a message."""

    expired: int
    given_up: int
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job; `id` is its place in the stream."""

    id: str
    progress: JobProgress


class JobStore:
    """One client's view of all jobs."""

    def __init__(self, redis: Redis, settings: JobSettings) -> None:
        self._redis = redis
        self._settings = settings
        self._scripts = {
            name: redis.register_script(getattr(scripts, name))
            for name in ("SUBMIT", "OFFER", "CLAIM", "RENEW", "SETTLE", "CANCEL", "FORGET")
        }
        self.durable: bool | None = None  # whether redis keeps an append-only file; None until a submit has asked

    async def trouble(self) -> tuple[str, str] | None:
        """Why jobs may not be kept there, and its mend. Raises `UpstreamUnavailable` when redis does not answer."""
        with redis_faults():
            memory = await self._redis.info("memory")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        if policy.startswith("allkeys-"):
            return f"the redis that keeps jobs evicts any key ({policy})", "set its maxmemory-policy to noeviction"
        return None

    async def known(self, tenant: str, key: str | None) -> tuple[str, str] | None:
        """The body digest and the job of an earlier submit under this idempotency key."""
        if key is None:
            return None
        with redis_faults():
            found = await _answer(self._redis.get(_idempotency_key(tenant, key)))
        return None if found is None else _remembered(found)

    async def submit(self, job: NewJob, key: str | None, digest: str) -> tuple[str, str] | None:
        """Keep the job, whole or not at all, and return when it is on redis' disk.

        Returns what is `known` of an earlier submit under `key`, which then stands. Raises `StorageFull`, `NotReady`
        when it may not be kept there, `UpstreamUnavailable` when redis does not say in time that it is kept.
        """
        refusal = await self.trouble()
        if refusal is not None:
            raise NotReady(refusal[0])
        keys = [job_key(job.id), _RUNNING, _tenant(job.tenant), _idempotency_key(job.tenant, key) if key else ""]
        fields = flat(fields_of(job, _ms(self._settings.keep_days * 86_400)))
        with redis_faults():
            async with self._redis.client() as connection:
                script = self._scripts["SUBMIT"]
                args = [digest, _KEY_REMEMBERED_S, job.id, *fields]
                found = await script(keys=keys, args=args, client=connection)
                await self._on_disk(connection)
        return _remembered(found) if found else None

    async def cancel(self, job: str) -> None:
        """End the job, unless it has ended. Workers notice with their next heartbeat."""
        await self._run("CANCEL", job, more=[LEAVINGS])

    async def get(self, tenant: str, job: str) -> Job:
        """How a job stands. Raises `NotFound`, the same for another tenant's as for none."""
        with redis_faults():
            fields = texts(await _answer(self._redis.hgetall(job_key(job))))
            if fields.get("v") != VERSION or fields["tenant"] != tenant:
                raise NotFound("no such job")
            dead = texts(await _answer(self._redis.hgetall(f"{job_key(job)}:dead"))) if fields["failed"] != "0" else {}
            now = await self._now()
        return job_of(fields, dead, now)

    async def ended(self, tenant: str, job: str) -> bool:
        """Whether nothing more happens to a job. Raises `NotFound`."""
        with redis_faults():
            owner, status = await _answer(self._redis.hmget(job_key(job), "tenant", "status"))
        if owner is None or owner.decode() != tenant:
            raise NotFound("no such job")
        return status.decode() in ENDED

    async def newest(self, tenant: str) -> list[Job]:
        """The newest jobs of a tenant, newest first."""
        with redis_faults():
            names = await _answer(self._redis.zrevrange(_tenant(tenant), 0, _LISTED - 1))
            found = [texts(await _answer(self._redis.hgetall(job_key(name.decode())))) for name in names]
            forgotten = [name for name, fields in zip(names, found, strict=True) if not fields]
            if forgotten:
                await self._redis.zrem(_tenant(tenant), *forgotten)
            now = await self._now()
        return [job_of(fields, {}, now) for fields in found if fields.get("v") == VERSION]

    async def events(self, job: str, after: str) -> list[Event]:
        """What happened after the event of this id, oldest first, a hundred at most."""
        with redis_faults():
            found = await _answer(self._redis.xrange(f"{job_key(job)}:events", min=f"({after}", count=_EVENTS_AT_ONCE))
        return [Event(id.decode(), progress_of(texts(fields))) for id, fields in found]

    async def newest_event(self, job: str) -> str | None:
        """The id of the last event."""
        with redis_faults():
            found = await _answer(self._redis.xrevrange(f"{job_key(job)}:events", count=1))
        return found[0][0].decode() if found else None

    async def forget(self, job: NewJob, key: str | None) -> None:
        """Take back a submit that was not confirmed."""
        idempotency = _idempotency_key(job.tenant, key) if key else ""
        await self._run("FORGET", job.id, job.id, more=[_tenant(job.tenant), idempotency])

    async def running(self) -> list[str]:
        """The jobs that have not ended."""
        with redis_faults():
            return sorted(name.decode() for name in await _answer(self._redis.smembers(_RUNNING)))

    async def queue_depth(self) -> int:
        """Messages that no worker has taken."""
        with redis_faults():
            return int(await _answer(self._redis.llen(_QUEUE_LIST)))

    async def offer(self, job: str) -> Offered:
        """Take back what ran out, and name the items that want a message."""
        s = self._settings
        lost = JobError(code="worker_lost", message=f"{s.deliveries} workers ended while they ran it")
        args = [s.window, _ms(s.lease_s), s.deliveries, lost.model_dump_json(exclude_none=True), job]
        expired, given_up, *items = await self._run("OFFER", job, *args, more=[_QUEUE_LIST])
        return Offered(int(expired), int(given_up), tuple(item.decode() for item in items))

    async def claim(self, job: str, item: str, token: str) -> int | None:
        """Hold an item that was offered: which delivery it is, from 1; None when there is nothing to do."""
        found = await self._run("CLAIM", job, item, token, _ms(self._settings.lease_s))
        return int(found) if found else None

    async def renew(self, job: str, item: str, token: str) -> Held:
        """Hold the item for a lease more, or learn that it is held no longer."""
        held: Held = (await self._run("RENEW", job, item, token, _ms(self._settings.lease_s))).decode()
        return held

    async def settle(
        self, job: str, item: str, token: str, how: How, error: JobError | None = None, wait_s: float = 0.0
    ) -> Became:
        """End a hold, and say what became of the item. A token that is not the one in redis changes nothing."""
        s = self._settings
        fault = "" if error is None else error.model_dump_json(exclude_none=True)
        args = [item, token, how, fault, _ms(wait_s), s.deliveries, s.retries, _ms(s.backoff_s)]
        became: Became = (await self._run("SETTLE", job, *args, more=[LEAVINGS])).decode()
        return became

    async def committed(self, job: str) -> dict[int, str]:
        """Item to the token under which its part was written, of the items that are done."""
        with redis_faults():
            found = texts(await _answer(self._redis.hgetall(f"{job_key(job)}:done")))
        return {int(item): token for item, token in found.items()}

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _run(self, name: str, job: str, *args: Any, more: list[str] | None = None) -> Any:
        with redis_faults():
            return await self._scripts[name](keys=[job_key(job), _RUNNING, *(more or [])], args=list(args))

    async def _on_disk(self, connection: Redis) -> None:
        """Wait until what this connection wrote is in the append-only file, and that on the disk."""
        ends = time.monotonic() + self._settings.fsync_wait_s
        step_ms = round(min(200.0, 500 * self._settings.redis_timeout_s))
        while True:
            try:
                local, _ = await _answer(connection.waitaof(1, 0, step_ms))
            except ResponseError:  # no such file is kept, or the server is too old to tell
                self.durable = False
                return
            if local:
                self.durable = True
                return
            if time.monotonic() > ends:
                raise UpstreamUnavailable("the redis that keeps jobs did not write to its disk in time")
            await asyncio.sleep(0)

    async def _now(self) -> int:
        seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000


async def _answer(call: Any) -> Any:
    """The library's annotations serve its blocking client too."""
    return await call


def job_key(job: str) -> str:
    """The hash of a job; its other keys begin with this one."""
    return f"{PREFIX}:job:{job}"


def _tenant(tenant: str) -> str:
    return f"{PREFIX}:tenant:{tenant}"


def _idempotency_key(tenant: str, key: str) -> str:
    return f"{PREFIX}:key:{len(tenant)}:{tenant}:{key}"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _remembered(found: bytes) -> tuple[str, str]:
    digest, _, job = found.decode().partition(" ")
    return digest, job

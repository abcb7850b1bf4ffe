"""A worker of jobs: gives out items that want a worker, takes messages, holds each item by a lease while it runs.

Three loops: the sweep (redis says what to send), dramatiq's threads (each hands one message to the event loop and waits
for its end), and a heartbeat for each item that runs. Redis may go away at any time: what runs goes on, what ends waits
for redis a while, and whatever is then lost is run again.
"""

import asyncio
import contextlib
import random
import secrets
import time

import structlog
from redis.exceptions import RedisError

from services.core.errors import E2HError, ModelLoadError, StorageFull, UpstreamUnavailable
from services.orchestrator.jobs.execution import GIVEN_BACK, Executor, Outcome, Rooms
from services.orchestrator.jobs.leavings import Leavings
from services.orchestrator.jobs.metrics import JobMetrics
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.store import FINISH, JobStore
from services.orchestrator.jobs.tasks import ItemQueue
from services.runtime.redis import connect

_log = structlog.get_logger("e2h.jobs")
_LONGEST_PAUSE_S = 5.0  # between tries of a redis that is down
_DRAMATIQ_STOPS_WITHIN_S = 5.0


class JobWorker:
    """Runs items until it is stopped. Without redis it waits for it."""

    def __init__(self, settings: JobSettings, executor: Executor, metrics: JobMetrics) -> None:
        """Raises `ValueError` when the settings name no redis."""
        if settings.redis_url is None:
            raise ValueError("a worker needs E2H_JOBS_REDIS_URL")
        self._settings = settings
        self._executor = executor
        self._metrics = metrics
        redis = connect(settings.redis_url, timeout_s=settings.redis_timeout_s)
        self._store = JobStore(redis, settings)
        self._leavings = Leavings(redis, settings)
        self._queue = ItemQueue(settings.redis_url, settings, self._handle)
        self._rooms = Rooms(settings.concurrency)
        self._held: set[asyncio.Task[Outcome]] = set()
        self._no_lone = asyncio.Event()  # cleared while an item that was delivered before is here
        self._no_lone.set()
        self._claiming = asyncio.Lock()
        self._told_lost: str | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._refusal: str | None = None
        self._down: str | None = None

    async def start(self) -> None:
        """Begin, whether or not redis is there. Raises `ModelLoadError` when it is and may not keep jobs."""
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(UpstreamUnavailable):
            refusal = await self._store.trouble()
            if refusal is not None:
                raise ModelLoadError(*refusal)
        self._sweeping = asyncio.create_task(self._sweep())

    async def ready(self) -> str | None:
        """None when it takes items, else the reason why not."""
        if self._sweeping is None or self._sweeping.done():
            return "the worker does not run"
        return self._refusal or self._down

    async def stop(self) -> None:
        """Take nothing more, let what runs end within `stop_s`, give the rest back."""
        self._stopping = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        # Told first, so that its threads take nothing while the items that they wait for end.
        ending = asyncio.create_task(asyncio.to_thread(self._end_queue))
        if self._held:
            await asyncio.wait(self._held, timeout=self._settings.stop_s)
        for work in list(self._held):
            work.cancel()
        await ending
        await self._store.close()

    def _end_queue(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            self._queue.stop(self._settings.stop_s + _DRAMATIQ_STOPS_WITHIN_S)
        self._queue.close()

    # --- the sweep ---

    async def _sweep(self) -> None:
        """Look at every job each `sweep_s`, at moments of its own, so that workers that start at once do not meet."""
        consuming, failures = False, 0
        # Asked as well as cancelled: the redis client can lose a cancellation that comes with its answer.
        while not self._stopping:
            pause = min(_LONGEST_PAUSE_S, self._settings.sweep_s * 2**failures)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            try:
                if not consuming:
                    consuming = await self._consume()
                if consuming:
                    await self._look()
                failures = 0
                self._tell_down(None)
            except (UpstreamUnavailable, StorageFull) as error:
                failures = min(failures + 1, 10)
                self._tell_down(error)
            except Exception:
                failures = min(failures + 1, 10)
                _log.exception("sweep")

    async def _consume(self) -> bool:
        """Begin to take messages, once redis answers and may keep jobs."""
        refusal = await self._store.trouble()
        self._refusal = None if refusal is None else refusal[0]
        if refusal is not None:
            return False
        await asyncio.to_thread(self._queue.consume)
        return True

    async def _look(self) -> None:
        jobs = await self._store.running()
        for job in jobs:
            offered = await self._store.offer(job)
            self._metrics.expiries.inc(offered.expired)
            if offered.given_up:
                self._metrics.item("given_up", count=offered.given_up)
            try:
                await asyncio.to_thread(self._queue.send, job, offered.items)
            except (RedisError, OSError) as error:
                # What got no message is offered again.
                raise UpstreamUnavailable("the queue of items does not answer") from error
        await self._leavings.remove_all()
        self._metrics.running.set(len(jobs))
        self._metrics.queued.set(await self._store.queue_depth())

    def _tell_down(self, error: E2HError | None) -> None:
        """One line when redis goes, one when it is back."""
        down = None if error is None else ("redis:full" if isinstance(error, StorageFull) else "redis:down")
        if down != self._down:
            _log.log(40 if down else 20, "redis", state=down or "up")
        self._down = down
        self._metrics.redis_down.set(0 if down is None else 1)

    # --- one item ---

    def _handle(self, job: str, item: str) -> None:
        """In a thread of dramatiq's: hand the message to the event loop and wait for its end."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._deliver(job, item), loop).result()
        except E2HError:
            pass  # redis is away; the item is offered again
        except Exception:
            _log.exception("delivery", job=job, item=item)

    async def _deliver(self, job: str, item: str) -> None:
        token = secrets.token_hex(8)
        # What is held counts a delivery when its worker ends, whether or not it had begun. So one by one, and none
        # while an item is here that was delivered before, and may be what ended its worker.
        async with self._claiming:
            await self._no_lone.wait()
            delivery = await self._store.claim(job, item, token)
            alone = delivery is not None and delivery > 1
            if alone:
                self._no_lone.clear()
        try:
            if delivery is not None:
                await self._hold(job, item, token, alone=alone)
        finally:
            if alone:
                self._no_lone.set()

    async def _hold(self, job: str, item: str, token: str, *, alone: bool) -> None:
        work = asyncio.create_task(self._run(job, item, token, alone=alone))
        self._held.add(work)
        self._metrics.held.set(len(self._held))
        keeping = asyncio.create_task(self._keep(job, item, token, work))
        try:
            if self._stopping:
                work.cancel()
            await asyncio.wait({work})
            await self._settle(job, item, token, GIVEN_BACK if work.cancelled() else work.result())
        finally:
            keeping.cancel()
            self._held.discard(work)
            self._metrics.held.set(len(self._held))

    async def _run(self, job: str, item: str, token: str, *, alone: bool) -> Outcome:
        async with self._rooms.entered(alone=alone):
            return await self._executor.run(job, item, token, lambda: self._store.committed(job))

    async def _keep(self, job: str, item: str, token: str, work: asyncio.Task[Outcome]) -> None:
        """Renew the lease until the item ends, and stop the work once it is for nothing."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            try:
                held = await self._store.renew(job, item, token)
            except (UpstreamUnavailable, StorageFull):
                continue  # what is not renewed may be given to another, whose token then stands
            if held != "ok":
                work.cancel()
                return

    async def _settle(self, job: str, item: str, token: str, outcome: Outcome) -> None:
        """Tell redis, for a while also one that is away: the part is written, and the item need not be run again."""
        ends = time.monotonic() + (self._settings.heartbeat_s if self._stopping else self._settings.lease_s * 5)
        wait_s = outcome.wait_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        while True:
            try:
                became = await self._store.settle(job, item, token, outcome.how, outcome.error, wait_s)
                break
            except (UpstreamUnavailable, StorageFull):
                if time.monotonic() > ends:
                    return
                await asyncio.sleep(min(1.0, self._settings.sweep_s) * random.uniform(0.5, 1.0))  # noqa: S311
        if item != FINISH:
            self._metrics.item(became, given_back=outcome.how == "given_back")
        if became == "lost" and job != self._told_lost:
            self._told_lost = job
            _log.error("job lost", job=job)
        if became == "given_up" or outcome.how == "abort":
            _log.warning("item", job=job, item=item, became=became, code=outcome.error and outcome.error.code)

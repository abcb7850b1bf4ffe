"""The queue of items: a dramatiq broker on redis, and its one actor. A message names a job and an item, as JSON.

Messages are hints: the state in redis (`store.py`) says what an item needs. One that is delivered twice finds nothing
to do, one that is lost is sent again.
"""

import logging
from collections.abc import Callable

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from pydantic import SecretStr
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.store import QUEUE, QUEUE_NAMESPACE

_ALWAYS = 1_000_000  # of a million commands
_POLL_S = 0.25

Handler = Callable[[str, str], None]


class ItemQueue:
    """Sends items to whichever worker is free; with `consume`, is one."""

    def __init__(self, url: SecretStr, settings: JobSettings, handle: Handler) -> None:
        """`handle(job, item)` runs in a thread of dramatiq's and must not raise."""
        # It tells of every lost connection with a stack; the worker tells of it once, in its own words.
        logging.getLogger("dramatiq").setLevel(logging.CRITICAL + 1)
        timeout_s = settings.redis_timeout_s
        client = Redis.from_url(
            url.get_secret_value(),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._threads = settings.concurrency
        # Also how often it sends a heartbeat.
        self._poll_ms = max(10, round(1000 * min(_POLL_S, settings.lease_s / 4)))
        self._broker = RedisBroker(  # type: ignore[no-untyped-call]  # as its package has it
            client=client,
            namespace=QUEUE_NAMESPACE,
            # Its own middleware would retry on its own terms, and raise exceptions into threads; both are ours to do.
            middleware=[],
            heartbeat_timeout=round(settings.lease_s * 1000),
            # By default one command in a thousand looks for dead workers, whose messages then wait for minutes.
            maintenance_chance=_ALWAYS,
        )
        self._actor = dramatiq.actor(actor_name="run_item", queue_name=QUEUE, broker=self._broker)(handle)
        self._worker: dramatiq.Worker | None = None

    def send(self, job: str, items: tuple[str, ...]) -> None:
        """Put a message for each item in the queue. Blocking. Raises `RedisError`."""
        for item in items:
            self._actor.send(job, item)

    def consume(self) -> None:
        """Begin to take messages, in threads of dramatiq's that outlive lost connections."""
        worker = dramatiq.Worker(self._broker, worker_timeout=self._poll_ms, worker_threads=self._threads)
        # One to begin as another ends; more would wait here while other workers have nothing to do.
        worker.queue_prefetch = self._threads + 1
        worker.start()
        self._worker = worker

    def stop(self, timeout_s: float) -> None:
        """Take no more messages, and put back those that were taken and not begun. Blocking."""
        if self._worker is not None:
            self._worker.stop(timeout=round(timeout_s * 1000))
            self._worker = None

    def close(self) -> None:
        self._broker.client.close()

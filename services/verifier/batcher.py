"""The device's queue: admit, form, run, answer. Gathers the solutions of concurrent callers into one forward pass.

A failing batch fails its own callers; a caller who left is dropped when the next batch forms; the death of the loop
fails everyone who waits and shows in `alive`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from services.core.errors import DeadlineExceeded, E2HError, InternalError, ItemTooLarge, NotReady
from services.runtime import context
from services.verifier.admission import Admission
from services.verifier.batching import Waiting, take_batch
from services.verifier.device import Device, Ran, Throughput
from services.verifier.families.base import Encoded
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RawScores, RewardModel

_log = structlog.get_logger("e2h.verifier")
# One batch runs and one full batch waits behind it, so that the device never waits for the event loop.
_BATCHES_AHEAD = 2
# One may be its input's fault; so many in a row are the device's.
_FAILURES_IN_A_ROW = 3
# A background batch holds the device no longer than a person would notice.
_BACKGROUND_S = 0.15
# How long a solution may be overtaken: interactive ones by more urgent problems, background ones by interactive ones.
_PATIENCE_S = {"interactive": 10.0, "batch": 120.0}


@dataclass(frozen=True, slots=True)
class Scored:
    """One solution's scores and where its time went. Times in seconds; `batch_tokens` went through the model."""

    raw: RawScores
    queue_s: float
    inference_s: float
    batch_tokens: int
    batch_solutions: int


@dataclass(eq=False, slots=True)
class _Item:
    encoded: Encoded
    waiting: Waiting
    deadline: float
    answer: asyncio.Future[Scored | ItemTooLarge]
    since: float = field(default_factory=time.monotonic)

    @property
    def tokens(self) -> int:
        return len(self.encoded.ids)


class Batcher:
    """Runs a `RewardModel` in one worker thread, batch after batch, for any number of callers."""

    def __init__(
        self,
        model: RewardModel,
        metrics: VerifierMetrics,
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        gather_s: float,
        max_wait_s: float | None = None,
    ) -> None:
        self._metrics = metrics
        self._device = Device(model, metrics, max_batch_tokens)
        self._throughput = Throughput()
        self._admission = Admission(metrics, max_queue_tokens, max_wait_s)
        self._gather_s = gather_s
        self._items: list[_Item] = []
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="e2h-verifier-device")
        self._loop: asyncio.Task[None] | None = None
        metrics.queue_age.set_function(self._age)

    def start(self) -> None:
        """Begin to run batches in the running event loop."""
        self._loop = asyncio.create_task(self._run_forever())

    async def close(self) -> None:
        """Stop after what was handed to the device; callers who still wait get `NotReady`."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            await asyncio.gather(*self._running, return_exceptions=True)
        # In a thread: it waits for the batch that runs.
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def alive(self) -> bool:
        return self._loop is not None and not self._loop.done()

    @property
    def failing(self) -> bool:
        """Whether the last batches all failed: a broken device gives no other sign."""
        return self._failures >= _FAILURES_IN_A_ROW

    def require_room(self) -> None:
        """Raises `Overloaded` when a request of the calling task would be refused whatever its size."""
        self._admission.require_room(0, background=context.priority() == "batch")

    async def score(self, encoded: Sequence[Encoded], group: str = "") -> list[Scored | ItemTooLarge]:
        """Scores in order; an item that the device cannot hold is answered by its error. `group` names the problem.

        The class and the deadline of the request are those of the calling task. Raises `Overloaded` when the queue is
        full, `DeadlineExceeded` when the scores would come too late, `NotReady` when the loop is not running.
        """
        items = self._admit(encoded, group)
        try:
            return list(await asyncio.gather(*(item.answer for item in items)))
        finally:
            for item in items:
                item.answer.cancel()  # no effect on those that were answered

    def _admit(self, encoded: Sequence[Encoded], group: str) -> list[_Item]:
        if not self.alive:
            raise NotReady("the verifier's batch loop is not running")
        tokens, background = sum(len(e.ids) for e in encoded), context.priority() == "batch"
        self._admission.require_room(tokens, background=background)
        items = [self._item(one, group) for one in encoded]
        self._items += items
        self._admission.add(tokens, background=background)
        self._changed.set()
        return items

    def _item(self, encoded: Encoded, group: str) -> _Item:
        deadline, priority = context.deadline(), context.priority()
        now = time.monotonic()
        # Half of a budget: what becomes urgent at its deadline only is never urgent in time.
        due = now + min(_PATIENCE_S[priority], (deadline - now) / 2)
        waiting = Waiting(encoded.key, group, due, background=priority == "batch")
        return _Item(encoded, waiting, deadline, asyncio.get_running_loop().create_future())

    def _age(self) -> float:
        return max((time.monotonic() - item.since for item in self._items if not item.answer.done()), default=0.0)

    async def _run_forever(self) -> None:
        try:
            while True:
                await self._gather()
                batch = self._form()
                if batch:
                    task = asyncio.create_task(self._run(batch))
                    self._running.add(task)
                    task.add_done_callback(self._ended)
        except Exception:
            _log.exception("the batch loop died")
            raise
        finally:
            _fail(self._items, NotReady("the verifier stopped"))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()

    async def _gather(self) -> None:
        """Wait for work, give the siblings of a first arrival a moment to come, and wait for the device's turn."""
        if not self._items:
            await self._until(lambda: bool(self._items))
            await asyncio.sleep(self._gather_s)
        await self._until(self._has_turn)

    def _has_turn(self) -> bool:
        """A batch that is not full forms as late as possible: others may still join it. So does a background one."""
        if not self._running:
            return True
        ready = sum(item.tokens for item in self._items if not item.waiting.background)
        return len(self._running) < _BATCHES_AHEAD and ready >= self._device.max_batch_tokens

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _form(self) -> list[_Item]:
        now = time.monotonic()
        present = [item for item in self._items if not self._is_lost(item, now)]
        budget = self._device.max_batch_tokens
        background = min(budget, self._throughput.tokens(_BACKGROUND_S))
        chosen = take_batch([item.waiting for item in present], now, budget, background)
        taken = set(chosen)
        batch = [present[place] for place in chosen]
        self._items = [item for place, item in enumerate(present) if place not in taken]
        self._admission.set_queue(_tokens(self._items), _tokens(i for i in self._items if i.waiting.background))
        self._admission.formed(_tokens(batch))
        return batch

    def _is_lost(self, item: _Item, now: float) -> bool:
        """Whether nobody waits for it any more."""
        if not item.answer.done() and now >= item.deadline:
            item.answer.set_exception(DeadlineExceeded("the request's deadline came before its turn"))
            self._metrics.expired.inc()
        return item.answer.done()

    async def _run(self, batch: list[_Item]) -> None:
        loop = asyncio.get_running_loop()
        ran_tokens = 0
        try:
            wanted, ran = await loop.run_in_executor(self._thread, self._run_wanted, batch)
            ran_tokens = _tokens(wanted)
            self._answer(wanted, ran)
            now = time.monotonic()
            for item in batch:
                if item not in wanted:
                    self._is_lost(item, now)
            self._failures = 0
        except Exception:
            self._failures += 1
            _log.exception("batch failed", solutions=len(batch))
            _fail(batch, InternalError("the verifier failed on this batch; the log has the cause"))
        finally:
            self._admission.ended(_tokens(batch), ran_tokens)

    def _run_wanted(self, batch: list[_Item]) -> tuple[list[_Item], Ran]:
        """In the device's thread. A batch may have waited behind another one: who left or is late is not run."""
        now = time.monotonic()
        wanted = [item for item in batch if not item.answer.done() and now < item.deadline]
        return wanted, self._device.run([item.encoded for item in wanted])

    def _answer(self, batch: list[_Item], ran: Ran) -> None:
        for item, result in zip(batch, ran.results, strict=True):
            self._metrics.waited(ran.began - item.since)
            if not item.answer.done():
                item.answer.set_result(_answer(item, result, ran))
        if batch:
            self._throughput.learn(ran.computed, ran.seconds)
            self._metrics.batch([item.tokens for item in batch], ran.computed, ran.seconds)


def _tokens(items: Iterable[_Item]) -> int:
    return sum(item.tokens for item in items)


def _answer(item: _Item, result: RawScores | ItemTooLarge, ran: Ran) -> Scored | ItemTooLarge:
    if isinstance(result, ItemTooLarge):
        return result
    return Scored(result, ran.began - item.since, ran.seconds, ran.computed, len(ran.results))


def _fail(items: Sequence[_Item], error: E2HError) -> None:
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(error)

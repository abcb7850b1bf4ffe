"""The device's queue: admit, form, run, answer. Gathers the solutions of concurrent callers into one forward pass.

A failing batch fails its own callers; a caller who left is dropped when the next batch forms; the death of the loop
fails everyone who waits and shows in `alive`.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from services.core.errors import E2HError, InternalError, NotReady, Overloaded
from services.verifier.batching import padded_tokens, take_batch
from services.verifier.families.base import Encoded
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RawScores, RewardModel

_log = structlog.get_logger("e2h.verifier")
# Before the first batch has been timed: what a small model does on one CPU core.
_FIRST_GUESS_TOKENS_PER_S = 5_000.0


@dataclass(frozen=True, slots=True)
class Scored:
    """One solution's scores and where its time went. Times in seconds, `batch_tokens` padded."""

    raw: RawScores
    queue_s: float
    inference_s: float
    batch_tokens: int
    batch_solutions: int


@dataclass(eq=False, slots=True)
class _Waiting:
    encoded: Encoded
    answer: asyncio.Future[Scored]
    since: float = field(default_factory=time.perf_counter)

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
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._budget = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._gather_s = gather_s
        self._waiting: list[_Waiting] = []
        self._queued_tokens = 0
        self._arrived = asyncio.Event()
        self._tokens_per_s = _FIRST_GUESS_TOKENS_PER_S
        self._device = ThreadPoolExecutor(max_workers=1, thread_name_prefix="e2h-verifier-device")
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to run batches in the running event loop."""
        self._loop = asyncio.create_task(self._run_forever())

    async def close(self) -> None:
        """Stop after the batch that runs; callers who still wait get `NotReady`."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        # In a thread: it waits for the batch that runs.
        await asyncio.to_thread(self._device.shutdown)

    @property
    def alive(self) -> bool:
        return self._loop is not None and not self._loop.done()

    async def score(self, encoded: Sequence[Encoded]) -> list[Scored]:
        """Scores in order. Raises `Overloaded` when the queue is full, `NotReady` when the loop is not running."""
        items = self._admit(encoded)
        try:
            return list(await asyncio.gather(*(item.answer for item in items)))
        finally:
            for item in items:
                item.answer.cancel()  # no effect on those that were answered

    def _admit(self, encoded: Sequence[Encoded]) -> list[_Waiting]:
        if not self.alive:
            raise NotReady("the verifier's batch loop is not running")
        tokens = sum(len(e.ids) for e in encoded)
        # An empty queue takes anything: a request larger than the bound could never be served otherwise.
        if self._queued_tokens and self._queued_tokens + tokens > self._max_queue_tokens:
            raise Overloaded("the verifier's queue is full", retry_after_s=self._queued_tokens / self._tokens_per_s)
        future = asyncio.get_running_loop().create_future
        items = [_Waiting(e, future()) for e in encoded]
        self._waiting += items
        self._count_queue(tokens)
        self._arrived.set()
        return items

    def _count_queue(self, change: int) -> None:
        self._queued_tokens += change
        self._metrics.queue_tokens.set(self._queued_tokens)

    async def _run_forever(self) -> None:
        try:
            while True:
                await self._gather()
                batch = self._form()
                if batch:
                    await self._run(batch)
        except Exception:
            _log.exception("the batch loop died")
            raise
        finally:
            _fail(self._waiting, NotReady("the verifier stopped"))

    async def _gather(self) -> None:
        """Wait for work; give the siblings of a first arrival a moment to come."""
        if not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
            await asyncio.sleep(self._gather_s)

    def _form(self) -> list[_Waiting]:
        abandoned = [item for item in self._waiting if item.answer.done()]
        present = [item for item in self._waiting if not item.answer.done()]
        chosen = take_batch([item.tokens for item in present], self._budget)
        taken = set(chosen)
        self._waiting = [item for place, item in enumerate(present) if place not in taken]
        batch = [present[place] for place in chosen]
        self._count_queue(-sum(item.tokens for item in (*abandoned, *batch)))
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            raws = await loop.run_in_executor(self._device, self._model.score, [item.encoded for item in batch])
            self._answer(batch, raws, began)
        except asyncio.CancelledError:
            _fail(batch, NotReady("the verifier stopped"))
            raise
        except Exception:
            _log.exception("batch failed", solutions=len(batch))
            _fail(batch, InternalError("the verifier failed on this batch; the log has the cause"))

    def _answer(self, batch: list[_Waiting], raws: Sequence[RawScores], began: float) -> None:
        if len(raws) != len(batch):
            raise ValueError(f"{len(raws)} results for {len(batch)} solutions")
        seconds = time.perf_counter() - began
        lengths = [item.tokens for item in batch]
        self._metrics.batch(lengths, seconds)
        # A moving average over some ten batches: it only predicts how long a refused caller should stay away.
        self._tokens_per_s += 0.1 * (sum(lengths) / max(seconds, 1e-6) - self._tokens_per_s)
        for item, raw in zip(batch, raws, strict=True):
            waited = began - item.since
            self._metrics.waited(waited)
            if not item.answer.done():
                item.answer.set_result(Scored(raw, waited, seconds, padded_tokens(lengths), len(batch)))


def _fail(items: Sequence[_Waiting], error: E2HError) -> None:
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(error)

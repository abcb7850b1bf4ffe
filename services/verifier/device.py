"""The device's side of the queue: runs one batch, makes it smaller where memory ends, remembers how fast it is."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.core.errors import ItemTooLarge
from services.verifier.batching import TrieTokens
from services.verifier.engine import DeviceOutOfMemory
from services.verifier.families.base import Encoded
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RawScores, RewardModel

_log = structlog.get_logger("e2h.verifier")
# Below it a batch is no batch any more; a device that cannot hold so many tokens fails item by item.
_LEAST_BATCH_TOKENS = 64
# Before the first batch has been timed: what a small model does on one CPU core.
_FIRST_GUESS_TOKENS_PER_S = 5_000.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch's results in order, the monotonic time at which it began, its seconds, and the tokens it computed."""

    results: list[RawScores | ItemTooLarge]
    began: float
    seconds: float
    computed: int


class Device:
    """Runs batches of a `RewardModel`. Blocking: the batcher's one worker thread calls it."""

    def __init__(self, model: RewardModel, metrics: VerifierMetrics, max_batch_tokens: int) -> None:
        self._model = model
        self._metrics = metrics
        self.max_batch_tokens = max_batch_tokens
        metrics.max_batch_tokens.set(max_batch_tokens)

    def run(self, batch: Sequence[Encoded]) -> Ran:
        """Score the batch. Raises what the model raises, but for want of memory, and `ValueError` for a wrong count."""
        began = time.monotonic()
        results = self._score(batch)
        if len(results) != len(batch):
            raise ValueError(f"{len(results)} results for {len(batch)} solutions")
        computed = sum(result.computed for result in results if isinstance(result, RawScores))
        self._metrics.prefix_cache_bytes.set(self._model.cached_bytes)
        return Ran(results, began, time.monotonic() - began, computed)

    def _score(self, batch: Sequence[Encoded]) -> list[RawScores | ItemTooLarge]:
        try:
            return list(self._model.score(batch))
        except DeviceOutOfMemory:
            # Outside of the handler: its traceback holds the tensors of the pass that failed.
            pass
        self._model.forget()
        self._metrics.out_of_memory.inc()
        if len(batch) == 1:
            return [self._score_alone(batch[0])]
        self._lower(batch)
        middle = len(batch) // 2
        return [*self._score(batch[:middle]), *self._score(batch[middle:])]

    def _score_alone(self, encoded: Encoded) -> RawScores | ItemTooLarge:
        """Once more with nothing kept of earlier batches."""
        try:
            return self._model.score([encoded])[0]
        except DeviceOutOfMemory:
            return ItemTooLarge("the device has no memory for this solution alone")

    def _lower(self, failed: Sequence[Encoded]) -> None:
        tokens = TrieTokens()
        for encoded in failed:
            tokens.add(encoded.key)
        lower = max(_LEAST_BATCH_TOKENS, tokens.total // 2)
        if lower < self.max_batch_tokens:
            self.max_batch_tokens = lower
            self._metrics.max_batch_tokens.set(lower)
            _log.warning("the device ran out of memory; batches are smaller from now on", max_batch_tokens=lower)


class Throughput:
    """How fast the device has been: a moving average over the last batches, the last of which has `weight`.

    It predicts waits and decides no score.
    """

    def __init__(self, weight: float = 0.1) -> None:
        self._weight = weight
        self._tokens, self._seconds = _FIRST_GUESS_TOKENS_PER_S, 1.0
        self.learnt = False

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of which so many tokens went through the model took so long."""
        if not self.learnt:
            self._tokens, self._seconds, self.learnt = float(max(1, tokens)), max(seconds, 1e-6), True
        # Each on its own: the mean of speeds would let small batches speak for large ones.
        self._tokens += self._weight * (tokens - self._tokens)
        self._seconds += self._weight * (seconds - self._seconds)

    def seconds(self, tokens: int) -> float:
        """How long so many tokens will take."""
        return tokens * self._seconds / max(self._tokens, 1.0)

    def tokens(self, seconds: float) -> int:
        """How many tokens go through in this time; at least one."""
        return max(1, int(seconds * self._tokens / max(self._seconds, 1e-6)))

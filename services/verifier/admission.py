"""Whether the device's queue takes more: how many tokens wait, how fast they have gone, and how long is too long.

Counts tokens of solutions as they come, shared prefixes and known ones included: what a batch saves by sharing shows in
how fast such tokens go. Knows no item and no event loop.
"""

import time
from collections.abc import Callable

from services.core.errors import Overloaded
from services.verifier.device import Throughput
from services.verifier.metrics import VerifierMetrics

# Some three batches: a device that others use as well gets slow within a second, and breaks what was predicted before.
_WEIGHT = 0.3


class Admission:
    """The bounds of one device's queue.

    `max_tokens` may wait at most. Where there is a `max_wait_s`, an interactive request is refused that would wait
    longer behind the batches that are formed and behind what waits; background work yields and does not count. The
    batch that takes it holds at most as much again, so it is answered within about twice that time.
    """

    def __init__(
        self,
        metrics: VerifierMetrics,
        max_tokens: int,
        max_wait_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._max_tokens = max_tokens
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._drain = Throughput(_WEIGHT)
        self._queued = 0
        self._background = 0
        self._formed = 0  # tokens of batches that run or are about to
        self._since = 0.0  # when the batch that runs could begin

    def require_room(self, tokens: int, *, background: bool) -> None:
        """Raises `Overloaded`, with the time after which the queue has gone, when so many more may not wait."""
        # An empty queue takes anything: a request larger than a bound could never be served otherwise.
        full = self._queued and self._queued + tokens > self._max_tokens
        if full or (not background and self._is_too_long(tokens)):
            wait = self._drain.seconds(self._queued + self._left_of_formed())
            raise Overloaded("the verifier's queue is full", retry_after_s=wait)

    def set_queue(self, tokens: int, background: int) -> None:
        """So many tokens wait, of which so many in the background."""
        self._queued, self._background = tokens, background
        self._metrics.queue_tokens.set(tokens)

    def add(self, tokens: int, *, background: bool) -> None:
        """So many more wait."""
        self.set_queue(self._queued + tokens, self._background + (tokens if background else 0))

    def formed(self, tokens: int) -> None:
        """A batch left the queue for the device."""
        if not self._formed:
            self._since = self._clock()
        self._formed += tokens

    def ended(self, tokens: int, ran: int) -> None:
        """A batch of so many is done, of which so many ran, in the time since the one before it was."""
        now = self._clock()
        if ran:
            self._drain.learn(ran, now - self._since)
        self._formed, self._since = self._formed - tokens, now

    def _is_too_long(self, tokens: int) -> bool:
        ahead = self._queued - self._background + self._left_of_formed()
        # Before the first batch nothing is known, and nobody is refused for a guess.
        if self._max_wait_s is None or ahead <= 0 or not self._drain.learnt:
            return False
        return self._drain.seconds(ahead + tokens) > self._max_wait_s

    def _left_of_formed(self) -> int:
        return max(0, self._formed - self._drain.tokens(self._clock() - self._since)) if self._formed else 0

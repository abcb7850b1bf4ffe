"""How many requests may be made again. Pure: the clock is handed in."""

from collections.abc import Callable

_SHARE = 0.1  # of traffic
_MOST_EARNED = 100.0  # what a thousand requests without a fault save up for the moment a replica dies
_RESERVE = 3.0  # retries that need no traffic at all,
_RESERVE_REFILL_S = 10.0  # which are back after this long


class RetryBudget:
    """A token bucket that a tenth of the traffic fills, over a small reserve that time fills.

    When a whole fleet fails, retries are at most a tenth of what arrives: they never become the load that keeps it down
    (Google's SRE book, ch. 22).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._earned = 0.0
        self._reserve = _RESERVE
        self._since = clock()

    def earn(self) -> None:
        """A request has come, which is not a retry."""
        self._earned = min(_MOST_EARNED, self._earned + _SHARE)

    def spend(self) -> bool:
        """Whether a retry may be made; if so, it is counted."""
        now = self._clock()
        self._reserve = min(_RESERVE, self._reserve + (now - self._since) * _RESERVE / _RESERVE_REFILL_S)
        self._since = now
        if self._earned >= 1.0:
            self._earned -= 1.0
        elif self._reserve >= 1.0:
            self._reserve -= 1.0
        else:
            return False
        return True

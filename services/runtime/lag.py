"""How late the event loop is: what computes on it for long holds up every request, and shows here."""

import asyncio
import time
from collections import deque

from prometheus_client import CollectorRegistry, Gauge

_EVERY_S = 0.05
# As far back as the gauge looks: a scrape every 15 s misses no hold-up.
_KEPT_S = 30.0


class LoopLag:
    """`e2h_event_loop_lag_seconds`: the longest that a task which was ready had to wait, in the last half minute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=int(_KEPT_S / _EVERY_S))  # when, and by how much
        gauge = Gauge("e2h_event_loop_lag_seconds", "Longest wait of a ready task in the last 30 s", registry=registry)
        gauge.set_function(self.longest)

    def longest(self) -> float:
        """Seconds."""
        since = time.monotonic() - _KEPT_S
        return max((late for at, late in self._late if at >= since), default=0.0)

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            now = time.monotonic()
            self._late.append((now, max(0.0, now - due)))

"""A soak from start to end, and what it found."""

import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from tests.soak.faults import Faults
from tests.soak.invariants import FEWEST_READINGS, TOLERANCES, Record, broken, risen
from tests.soak.load import Callers, Jobs
from tests.soak.stack import CAPACITY_PER_S, Stack, soaked

_QUIET_WITHIN_S = 90.0


@dataclass(frozen=True)
class Outcome:
    """What was seen, which faults there were, and what does not hold."""

    record: Record
    faults: list[dict[str, Any]]
    broken: list[str]
    seconds: float

    def summary(self) -> dict[str, Any]:
        """For people and files."""
        lives = {k: v for k, v in self.record.readings.items() if len(v) >= FEWEST_READINGS}
        return {
            "seconds": round(self.seconds),
            "faults": self.faults,
            "requests": {"sent": self.record.sent, **Counter(each.status for each in self.record.asked)},
            "jobs": dict(Counter(job.status for job in self.record.jobs)),
            "samples": sum(len(job.samples) for job in self.record.jobs),
            "lives": {
                name: {"seconds": round(seen[-1].at - seen[0].at)}
                | {what: [getattr(seen[0], what), risen([getattr(r, what) for r in seen])] for what in TOLERANCES}
                for name, seen in lives.items()
            },
            "gauges": self.record.gauges,
            "broken": self.broken,
            "outages": self.record.outages,
            "requests_in_full": [asdict(each) | {"body": None} for each in self.record.asked],
        }


def soak(directory: Path, minutes: float, every_s: float, seed: int) -> Outcome:
    """Run it; everything that was started has ended when it returns."""
    length_s = 60 * minutes
    with soaked(directory) as stack:
        callers, jobs = Callers(stack, CAPACITY_PER_S / 2, seed), Jobs(stack)
        faults = Faults(stack, callers, jobs, seed, length_s)
        ending = threading.Event()
        tending = threading.Thread(target=stack.tend, args=(ending, max(1.0, length_s / 200)))
        for each in (tending, callers, jobs):
            each.start()
        try:
            faults.run(every_s)
        finally:
            faults.settle()
            callers.stop()
            jobs.stop()
            stack.record.gauges = _quiet(stack)
            ending.set()
            tending.join()
        stack.record.stacks = stack.stacks()
        return Outcome(stack.record, faults.log, broken(stack.record), stack.now())


def _quiet(stack: Stack) -> dict[str, float | None]:
    """The gauges once all are 0, or as they are when that takes too long; with the leases that redis holds."""
    deadline = time.monotonic() + _QUIET_WITHIN_S
    while True:
        found = stack.gauges() | {"leases": _leases(stack)}
        if all(value == 0 for value in found.values()) or time.monotonic() > deadline:
            return found
        time.sleep(1.0)


def _leases(stack: Stack) -> float:
    with Redis.from_url(stack.redis.url, socket_timeout=5) as client:
        return float(sum(client.hlen(key) for key in client.scan_iter("e2h:jobs:job:*:tokens")))

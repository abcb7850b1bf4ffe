"""What must hold after a soak. Pure: from what was recorded to sentences, one for each thing that is broken."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# A broken connection is allowed to a request that was under way while the orchestrator was down.
BROKEN, LEFT = "broken", "left"
ALLOWED = {"200", "429", "503", "504", LEFT}
# Growth from the first quarter of a life to its last that is noise: allocators, connections of pools, threads of pools.
TOLERANCES: Mapping[str, float] = {"rss_kib": 48 * 1024, "threads": 6, "descriptors": 24}
# A life that is shorter says nothing of leaks: it is all start.
FEWEST_READINGS = 12
# Nor does a life of fewer seconds, of each: pools fill for the first twenty.
SHORTEST_S: Mapping[str, float] = {"rss_kib": 120.0, "threads": 45.0, "descriptors": 45.0}
# What a worker's memory rises by, once: it loads what makes reports when a job ends in its hands, in a thread with an
# arena of its own (tests/evaluation/test_report.py shows that more reports take no more).
REPORTS_KIB = 320 * 1024


@dataclass(frozen=True)
class Asked:
    """One request of a caller: seconds since the start when it was sent and ended, and its status."""

    began: float
    ended: float
    status: str
    key: str | None = None
    body: str | None = None


@dataclass(frozen=True)
class JobSeen:
    """A job that was accepted, as it was found at the end. `samples` are (problem id, seed) of each in its table."""

    id: str
    problems: tuple[str, ...]
    poison: tuple[str, ...]
    n: int
    status: str
    failed: int
    samples: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Reading:
    """What a process took at a moment, seconds since the start."""

    at: float
    rss_kib: float
    threads: float
    descriptors: float


@dataclass
class Record:
    """All that a soak saw. `outages` are the spans in which the orchestrator may be down."""

    sent: int = 0
    asked: list[Asked] = field(default_factory=list)
    jobs: list[JobSeen] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    gauges: dict[str, float | None] = field(default_factory=dict)
    stacks: list[str] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)


def broken(record: Record) -> list[str]:
    """A sentence for each thing that does not hold; none when all does."""
    return [
        *requests(record),
        *(line for job in record.jobs for line in of_job(job)),
        *(f"{name} is {value}" for name, value in record.gauges.items() if value != 0),
        *(line for name, seen in record.readings.items() for line in growth(name, seen)),
        *(f"a stack in the log: {line}" for line in record.stacks),
        *(f"a process ended by itself: {line}" for line in record.deaths),
        *record.unsteady,
    ]


def requests(record: Record) -> list[str]:
    """Each request has one end, of an allowed kind; a key has one answer but where it was forgotten."""
    found = []
    if (ended := len(record.asked)) != record.sent:
        found.append(f"{record.sent} requests were sent, {ended} ended")
    strange = Counter(each.status for each in record.asked if not _allowed(each, record.outages))
    return found + [f"{count} requests ended with {status}" for status, count in strange.items()]


def _allowed(asked: Asked, outages: Sequence[tuple[float, float]]) -> bool:
    amid = any(asked.began <= until and asked.ended >= since for since, until in outages)
    return asked.status in ALLOWED or (asked.status == BROKEN and amid)


def of_job(job: JobSeen) -> list[str]:
    """It ended, and has each sample of each problem once, but of those that end their workers."""
    wanted = "completed_with_errors" if job.poison else "completed"
    found = [] if job.status == wanted else [f"job {job.id} is {job.status}, not {wanted}"]
    if (job.failed > 0) != bool(job.poison):
        found.append(f"job {job.id} has {job.failed} failed items")
    sound = set(job.problems) - set(job.poison)
    counts = Counter(name for name, _ in job.samples)
    found += [f"job {job.id} has {counts[p]} of {job.n} samples of {p}" for p in sorted(sound) if counts[p] != job.n]
    found += [f"job {job.id} has samples of {p}" for p in sorted(counts.keys() - sound)]
    twice = [name for name, count in Counter(job.samples).items() if count > 1]
    return found + [f"job {job.id} has a sample of {name} twice" for name, _ in twice]


def growth(name: str, seen: Sequence[Reading]) -> list[str]:
    """What a process took more and more of: from its first quarter to its last, by its slope, and still in its second
    half, since a step that is taken once is no leak."""
    if len(seen) < FEWEST_READINGS:
        return []
    found, span = [], seen[-1].at - seen[0].at
    for what, noise in TOLERANCES.items():
        tolerance = noise + (REPORTS_KIB if what == "rss_kib" and name.startswith("worker") else 0)
        values = [float(getattr(reading, what)) for reading in seen]
        slope = statistics.linear_regression([reading.at for reading in seen], values).slope * span
        steady = min(risen(values), slope) <= tolerance or risen(values[len(values) // 2 :]) <= tolerance / 4
        if not steady and span >= SHORTEST_S[what]:
            found.append(f"{name}: {what} grew by {risen(values):.0f} in {span:.0f} s")
    return found


def risen(values: Sequence[float]) -> float:
    """The median of the last quarter less that of the first."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[-quarter:]) - statistics.median(values[:quarter])

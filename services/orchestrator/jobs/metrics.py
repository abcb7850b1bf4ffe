"""What jobs count. Labels are closed sets."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.orchestrator.jobs.store import Became

_OUTCOMES = ("done", "retried", "failed", "dead_lettered", "given_back", "dropped")
# What is missing here was dropped: its job has ended, or is gone, or another worker holds the item.
_OUTCOME_OF: dict[Became, str] = {
    "done": "done",
    "retried": "retried",
    "waiting": "failed",
    "given_up": "dead_lettered",
}


class JobMetrics:
    """Of one worker: what became of items; and of all: jobs that run, messages that wait."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._items = Counter("e2h_jobs_items_total", "Items by what became of them", ("outcome",), registry=registry)
        for outcome in _OUTCOMES:
            self._items.labels(outcome)
        self.expiries = Counter("e2h_jobs_lease_expiries_total", "Leases found to have run out", registry=registry)
        self.fenced = Counter(
            "e2h_jobs_fenced_writes_total", "Items refused to whom no longer held them", registry=registry
        )
        self.running = Gauge("e2h_jobs_running", "Jobs that have not ended, of all workers", registry=registry)
        self.queued = Gauge("e2h_jobs_queue_depth", "Messages that no worker has taken", registry=registry)
        self.held = Gauge("e2h_jobs_items_held", "Items that this worker runs", registry=registry)
        self.redis_down = Gauge("e2h_jobs_redis_down", "1 while redis does not answer this worker", registry=registry)

    def item(self, became: Became, *, given_back: bool = False, count: int = 1) -> None:
        """Count items by what became of them."""
        if became == "fenced":
            self.fenced.inc(count)
        outcome = "given_back" if given_back and became == "waiting" else _OUTCOME_OF.get(became, "dropped")
        self._items.labels(outcome).inc(count)

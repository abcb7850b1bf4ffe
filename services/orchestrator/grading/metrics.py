"""What the grading pool counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.core.equivalence import Verdict


class GradingMetrics:
    """Verdicts by method, time-outs, and why processes were replaced; labels are closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._verdicts = Counter("e2h_grading_verdicts_total", "Verdicts given", ("method", "equal"), registry=registry)
        self.remembered = Counter(
            "e2h_grading_remembered_total", "Keys and verdicts that were known already", registry=registry
        )
        self.timeouts = Counter("e2h_grading_timeouts_total", "Comparisons cut short by the clock", registry=registry)
        self._restarts = Counter(
            "e2h_grading_worker_restarts_total", "Processes replaced", ("cause",), registry=registry
        )
        self.waiting = Gauge("e2h_grading_waiting", "Comparisons that wait or run", registry=registry)

    def verdict(self, verdict: Verdict) -> None:
        self._verdicts.labels(verdict.method.value, str(verdict.equal).lower()).inc()

    def restarted(self, cause: str) -> None:
        """`cause` is timeout, died or cancelled."""
        self._restarts.labels(cause).inc()

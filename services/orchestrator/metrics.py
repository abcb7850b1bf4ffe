"""What the orchestrator counts: solves, how sure and how complete they were, and who waits for a turn."""

from collections.abc import Callable
from functools import partial
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.core.contracts import SolveResponse
from services.orchestrator.search.metrics import SearchMetrics
from services.runtime.context import Priority
from services.runtime.metrics import LATENCY_BUCKETS


class SolveMetrics:
    """One observation a finished solve; labels are strategies and exclusion reasons, both closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.searches = SearchMetrics(registry)
        self._solves = Counter(
            "e2h_solves_total", "Solves answered", ("strategy", "partial", "degraded"), registry=registry
        )
        self._seconds = Histogram(
            "e2h_solve_seconds", "Time of a solve", ("strategy",), registry=registry, buckets=LATENCY_BUCKETS
        )
        self._candidates = Counter(
            "e2h_solve_candidates_total", "Samples by part in the vote", ("part",), registry=registry
        )
        self._margin = Histogram(
            "e2h_solve_margin", "Margin of the vote", registry=registry, buckets=tuple(i / 10 for i in range(11))
        )
        self._saved = Counter(
            "e2h_solve_samples_saved_total", "Samples that an early stop left out", ("strategy",), registry=registry
        )
        self._verdicts = Counter(
            "e2h_solve_verifier_vs_majority_total",
            "Votes that scores decided: whether the most frequent answer would have won too (agrees, disagrees)",
            ("verdict",),
            registry=registry,
        )
        self._unanswered = Counter("e2h_solves_unanswered_total", "Solves without an answer", registry=registry)

    def observe(self, response: SolveResponse, n: int) -> None:
        """Count a solve that was asked for `n` samples."""
        strategy = response.strategy.value
        self._solves.labels(strategy, str(response.partial).lower(), response.degraded or "no").inc()
        self._seconds.labels(strategy).observe(response.timings_ms.total / 1000)
        if response.stopped_early:
            self._saved.labels(strategy).inc(n - response.used)
        for candidate in response.candidates:
            self._candidates.labels((candidate.excluded or "voted").partition(":")[0]).inc()
        if response.answer is None:
            self._unanswered.inc()
        else:
            self._margin.observe(response.margin)
        if response.classes and response.strategy.needs_scores and response.degraded is None:
            most = max(each.votes for each in response.classes)
            self._verdicts.labels("agrees" if response.classes[0].votes == most else "disagrees").inc()


class AdmissionMetrics:
    """Labels are the two classes and the reasons of refusals: no tenants, of whom there may be any number."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "e2h_admission_waiting", "Requests that wait for their turn", ("priority",), registry=registry
        )
        self.in_flight = Gauge(
            "e2h_admission_tokens_in_flight", "Most that solves under way may still make", registry=registry
        )
        self.refused = Counter(
            "e2h_admission_refused_total",
            "Requests refused: too many wait (full), the wait is too long (wait), the budget is too short (budget)",
            ("priority", "reason"),
            registry=registry,
        )
        self.seconds = Histogram(
            "e2h_admission_wait_seconds",
            "Wait of requests that were let in",
            ("priority",),
            registry=registry,
            buckets=LATENCY_BUCKETS,
        )

    def show(self, in_flight: Callable[[], int], waiting: Callable[[Priority], int]) -> None:
        """Have these asked whenever somebody looks."""
        self.in_flight.set_function(in_flight)
        for priority in get_args(Priority):
            self.waiting.labels(priority).set_function(partial(waiting, priority))

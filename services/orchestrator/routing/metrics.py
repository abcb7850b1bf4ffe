"""What routing counts. Labels are our two services and the ordinals of configured replicas: closed sets."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.orchestrator.routing.breaker import State

_STATES: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2}


class RoutingMetrics:
    """Retries, those that the budget refused, samples made again, and each replica's breaker and load."""

    def __init__(self, registry: CollectorRegistry) -> None:
        one, each = ("service",), ("service", "replica")
        self._retries = Counter("e2h_upstream_retries_total", "Requests made again", one, registry=registry)
        self._refused = Counter(
            "e2h_upstream_retries_refused_total", "Retries that the retry budget refused", one, registry=registry
        )
        self._remade = Counter("e2h_samples_remade_total", "Samples asked of another replica", registry=registry)
        self._breaker = Gauge(
            "e2h_upstream_breaker_state", "0 closed, 1 half open, 2 open: gets no requests", each, registry=registry
        )
        self._outstanding = Gauge(
            "e2h_upstream_outstanding_tokens", "Estimated tokens of requests under way", each, registry=registry
        )

    def retried(self, service: str) -> None:
        self._retries.labels(service).inc()

    def refused(self, service: str) -> None:
        self._refused.labels(service).inc()

    def remade(self, samples: int) -> None:
        self._remade.inc(samples)

    def watch(self, service: str, ordinal: int, state: Callable[[], State], outstanding: Callable[[], int]) -> None:
        """Show a replica's breaker and load, read when the metrics are."""
        self._breaker.labels(service, str(ordinal)).set_function(lambda: _STATES[state()])
        self._outstanding.labels(service, str(ordinal)).set_function(outstanding)

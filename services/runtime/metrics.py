"""HTTP metrics, labelled from closed sets only, and the exposition route. Each app has its own registry."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

# From a health probe (1 ms) to a solve with a thousand samples on a CPU (minutes).
LATENCY_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
UNKNOWN_ROUTE = "other"


class HttpMetrics:
    """Requests by route template, method and status class. An unknown path counts as `other`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("route", "method", "status")
        self._requests = Counter("e2h_http_requests_total", "HTTP requests answered", labels, registry=registry)
        self._seconds = Histogram(
            "e2h_http_request_seconds",
            "Time to the end of the response",
            ("route",),
            registry=registry,
            buckets=LATENCY_BUCKETS,
        )
        self.inflight = Gauge("e2h_http_inflight", "HTTP requests being answered", registry=registry)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        known_method = method if method in {"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"} else "other"
        self._requests.labels(route, known_method, f"{status // 100}xx").inc()
        self._seconds.labels(route).observe(seconds)


def exposition(registry: CollectorRegistry) -> Response:
    """The registry in Prometheus' text format."""
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

"""What the verifier counts: load, batches, and how many of their tokens had to be computed."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_TOKEN_BUCKETS = (64, 256, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
_SOLUTION_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class VerifierMetrics:
    """Queue, batches and tokens of the verifier."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_tokens = Gauge("e2h_verifier_queue_tokens", "Tokens that wait for the device", registry=registry)
        self.queue_age = Gauge(
            "e2h_verifier_queue_age_seconds", "How long the solution waits that waits longest", registry=registry
        )
        self._solutions = Counter(
            "e2h_verifier_solutions_total",
            "Solutions by outcome: scored, or the error's code",
            ("outcome",),
            registry=registry,
        )
        self.expired = Counter(
            "e2h_verifier_expired_total", "Solutions whose deadline came before their turn", registry=registry
        )
        self.out_of_memory = Counter(
            "e2h_verifier_out_of_memory_total", "Forward passes that the device had no memory for", registry=registry
        )
        self.max_batch_tokens = Gauge(
            "e2h_verifier_max_batch_tokens", "Tokens of a batch at most; falls when memory ends", registry=registry
        )
        self.prefix_cache_bytes = Gauge(
            "e2h_verifier_prefix_cache_bytes", "Keys and values kept for prefixes that come again", registry=registry
        )
        self._tokens = Counter(
            "e2h_verifier_tokens_total", "Tokens of the solutions that were scored", registry=registry
        )
        self._computed = Counter(
            "e2h_verifier_tokens_computed_total",
            "Tokens that went through the model: shared prefixes once, known ones never",
            registry=registry,
        )
        self._cached = Counter(
            "e2h_verifier_tokens_cached_total",
            "Tokens that did not: kept of an earlier batch, or computed for another solution of the same",
            registry=registry,
        )
        self._batch_tokens = Histogram(
            "e2h_verifier_batch_tokens", "Tokens a batch computed", registry=registry, buckets=_TOKEN_BUCKETS
        )
        self._batch_solutions = Histogram(
            "e2h_verifier_batch_solutions", "Solutions of a batch", registry=registry, buckets=_SOLUTION_BUCKETS
        )
        self._queue_seconds = Histogram(
            "e2h_verifier_queue_seconds",
            "Wait of a solution before its batch",
            registry=registry,
            buckets=_SECONDS_BUCKETS,
        )
        self._inference_seconds = Histogram(
            "e2h_verifier_inference_seconds", "Time of a forward pass", registry=registry, buckets=_SECONDS_BUCKETS
        )

    def batch(self, lengths: Sequence[int], computed: int, seconds: float) -> None:
        """A forward pass over solutions of these lengths, of which so many tokens were computed."""
        self._batch_tokens.observe(computed)
        self._batch_solutions.observe(len(lengths))
        self._tokens.inc(sum(lengths))
        self._computed.inc(computed)
        self._cached.inc(max(0, sum(lengths) - computed))
        self._inference_seconds.observe(seconds)

    def waited(self, seconds: float) -> None:
        self._queue_seconds.observe(seconds)

    def solution(self, outcome: str) -> None:
        self._solutions.labels(outcome).inc()

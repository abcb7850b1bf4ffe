"""What the verifier counts: load, batches, and how much of them was padding."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.verifier.batching import padded_tokens

_TOKEN_BUCKETS = (64, 256, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
_SOLUTION_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class VerifierMetrics:
    """Queue, batches and tokens of the verifier."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_tokens = Gauge("e2h_verifier_queue_tokens", "Tokens that wait for the device", registry=registry)
        self._solutions = Counter(
            "e2h_verifier_solutions_total",
            "Solutions by outcome: scored, or the error's code",
            ("outcome",),
            registry=registry,
        )
        self._tokens = Counter("e2h_verifier_tokens_total", "Tokens that went through the model", registry=registry)
        self._padding = Counter("e2h_verifier_padding_tokens_total", "Padding that was computed", registry=registry)
        self._batch_tokens = Histogram(
            "e2h_verifier_batch_tokens", "Padded tokens of a batch", registry=registry, buckets=_TOKEN_BUCKETS
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

    def batch(self, lengths: Sequence[int], seconds: float) -> None:
        padded = padded_tokens(lengths)
        self._batch_tokens.observe(padded)
        self._batch_solutions.observe(len(lengths))
        self._tokens.inc(sum(lengths))
        self._padding.inc(padded - sum(lengths))
        self._inference_seconds.observe(seconds)

    def waited(self, seconds: float) -> None:
        self._queue_seconds.observe(seconds)

    def solution(self, outcome: str) -> None:
        self._solutions.labels(outcome).inc()

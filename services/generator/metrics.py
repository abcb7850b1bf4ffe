"""What the generator counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.core.contracts import Completion


class GeneratorMetrics:
    """Samples and tokens by how they ended, and how many samples run."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.running = Gauge("e2h_generator_samples_running", "Samples in the engine", registry=registry)
        self._samples = Counter(
            "e2h_generator_samples_total", "Samples finished", ("finish_reason",), registry=registry
        )
        self._tokens = Counter("e2h_generator_tokens_total", "Tokens of finished samples", registry=registry)
        self._prompt_tokens = Counter(
            "e2h_generator_prompt_tokens_total", "Prompt tokens, once a request", registry=registry
        )

    def began(self, prompt_tokens: int) -> None:
        self._prompt_tokens.inc(prompt_tokens)

    def finished(self, completion: Completion) -> None:
        self._samples.labels(completion.finish_reason).inc()
        self._tokens.inc(completion.tokens)

    def cancelled(self) -> None:
        self._samples.labels("cancelled").inc()

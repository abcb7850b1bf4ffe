"""A generator of known speed as a real process, for faults and overload: what is fake is the model, nothing around it.

python -m tests.integration.paced_generator PORT '{"token_s": 0.01}'
"""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.core.contracts import Completion, GenerateDone, GenerateRequest, GenerationUsage, ModelInfo
from services.core.seeds import derive_seed
from services.generator.admission import BoundedGenerator
from services.generator.api import generator_router
from services.runtime.app import Lifecycle, build_app
from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings, load_settings

_PROMPT_TOKENS = 5


@dataclass(frozen=True)
class GeneratorSpeed:
    """`slots` samples are decoded at once; sample i has `tokens + spread * i` tokens of `token_s` each."""

    token_s: float = 0.01
    tokens: int = 10
    spread: int = 0
    slots: int = 256
    max_queue_tokens: int = 16_777_216
    text: str = "It is {i}.\n\n# Answer\n\n{i}"


class PacedGenerator:
    """A `Generator` of known speed."""

    def __init__(self, speed: GeneratorSpeed, registry: CollectorRegistry) -> None:
        self._speed = speed
        self._slots = asyncio.Semaphore(speed.slots)
        self._tokens = Counter("engine_tokens_total", "Tokens decoded", registry=registry)
        self._finished = Counter("engine_finished_total", "Samples finished", registry=registry)
        self._aborted = Counter("engine_aborted_total", "Samples aborted", registry=registry)
        self._requests = Counter("engine_requests_total", "Requests", registry=registry)
        self._running = Gauge("engine_running", "Samples that run or wait", registry=registry)

    async def info(self) -> ModelInfo:
        return ModelInfo(id="paced-generator", context_length=4096)

    async def ready(self) -> str | None:
        return None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        self._requests.inc()
        seed = request.sampling.seed or 0
        samples = [asyncio.create_task(self._sample(seed, index)) for index in request.sample_indices]
        tokens = 0
        try:
            for place, finished in enumerate(asyncio.as_completed(samples)):
                completion = await finished
                tokens += completion.tokens
                yield completion.model_copy(update={"prompt_tokens": 0 if place else _PROMPT_TOKENS})
            usage = GenerationUsage(prompt_tokens=_PROMPT_TOKENS, completion_tokens=tokens)
            yield GenerateDone(id=f"gen-{uuid.uuid4().hex}", model="paced-generator", usage=usage)
        finally:
            for sample in samples:
                sample.cancel()
            await asyncio.gather(*samples, return_exceptions=True)

    async def _sample(self, seed: int, index: int) -> Completion:
        tokens = self._speed.tokens + self._speed.spread * index
        with self._running.track_inprogress():
            try:
                async with self._slots:
                    for _ in range(tokens):
                        await asyncio.sleep(self._speed.token_s)
                        self._tokens.inc()
            except asyncio.CancelledError:
                self._aborted.inc()
                raise
        self._finished.inc()
        text = self._speed.text.format(i=index)
        own = derive_seed(seed, index)
        return Completion(index=index, text=text, tokens=tokens, finish_reason="stop", logprob=None, seed=own)


async def _nothing() -> None:
    """There is no model to load or release."""


def main() -> int:
    runtime, registry, lifecycle = load_settings(RuntimeSettings), CollectorRegistry(), Lifecycle()
    configure_logging(runtime)
    speed = GeneratorSpeed(**json.loads(sys.argv[2]))
    generator = BoundedGenerator(PacedGenerator(speed, registry), speed.max_queue_tokens, registry)
    app = build_app(
        title="paced generator",
        routers=[generator_router(generator)],
        bodies=[GenerateRequest],
        lifecycle=lifecycle,
        registry=registry,
        settings=runtime,
    )
    return run(Service(app, lifecycle, start=_nothing, stop=_nothing), int(sys.argv[1]), runtime)


if __name__ == "__main__":
    sys.exit(main())

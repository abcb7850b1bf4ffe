"""How much a generator takes on: a bound in tokens before its engine, which would queue without end. Knows the port.

What a request may make at most, n times `max_tokens`, is reserved before anything is tokenised, and released sample by
sample. A request that finds no room is refused with the wait until there will be some.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.core.contracts import Completion, GenerateDone, GenerateRequest, ModelInfo
from services.core.errors import Overloaded
from services.core.ports import Generator
from services.runtime.pace import Pace


class BoundedGenerator:
    """A `Generator` that refuses what would make more than `max_tokens` wait or run at once."""

    def __init__(
        self,
        generator: Generator,
        max_tokens: int,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._generator = generator
        self._max_tokens = max_tokens
        self._clock = clock
        self._reserved = 0
        self._released_at = 0.0
        self._pace = Pace()
        self._gauge = Gauge("e2h_generator_reserved_tokens", "Most that admitted requests may make", registry=registry)
        self._refused = Counter("e2h_generator_refused_total", "Requests refused for want of room", registry=registry)

    async def info(self) -> ModelInfo:
        return await self._generator.info()

    async def ready(self) -> str | None:
        return await self._generator.ready()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        each = request.sampling.max_tokens
        self._reserve(request.n * each)
        left = request.n * each
        try:
            async with aclosing(self._generator.generate(request)) as events:
                async for event in events:
                    if isinstance(event, Completion):
                        left -= each
                        self._release(each)
                    yield event
        finally:
            self._count(-left)

    def _reserve(self, tokens: int) -> None:
        # With nothing reserved anything is taken: what is larger than the bound could never be served otherwise.
        if self._reserved and self._reserved + tokens > self._max_tokens:
            self._refused.inc()
            excess = self._reserved + tokens - self._max_tokens
            wait = self._pace.seconds(excess) or excess / self._max_tokens
            raise Overloaded("the generator's queue is full", retry_after_s=wait)
        if not self._reserved:
            self._released_at = self._clock()  # an idle time is no pace
        self._count(tokens)

    def _release(self, tokens: int) -> None:
        now = self._clock()
        self._pace.learn(tokens, now - self._released_at)
        self._released_at = now
        self._count(-tokens)

    def _count(self, change: int) -> None:
        self._reserved += change
        self._gauge.set(self._reserved)

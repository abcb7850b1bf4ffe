"""The port through which training samples, and any `Generator` of the services behind it. No engine.

`Sampler` is synchronous and takes many requests at once, so that an engine can batch across problems.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

from services.core.contracts import Completion, GenerateRequest
from services.core.errors import UpstreamContract
from services.core.ports import Generator

IN_FLIGHT = 32  # requests at a time: enough to fill an engine, too few to be refused by its queue


class Sampler(Protocol):
    """Samples solutions of many problems."""

    def sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        """The completions of each request, in order of request and index."""
        ...


class GeneratorSampler:
    """A `Generator` as a `Sampler`. `close` is awaited by whoever made the generator."""

    def __init__(self, generator: Generator, in_flight: int = IN_FLIGHT) -> None:
        self._generator = generator
        self._in_flight = in_flight

    def sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        """Raises what the generator raises, and `UpstreamContract` when a sample is missing."""
        return asyncio.run(self.sample_here(requests))

    async def sample_here(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        """The same in a running event loop."""
        gate = asyncio.Semaphore(self._in_flight)

        async def one(request: GenerateRequest) -> list[Completion]:
            async with gate:
                return await self._completions(request)

        tasks = [asyncio.create_task(one(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:  # one that fails ends the others
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _completions(self, request: GenerateRequest) -> list[Completion]:
        found: list[Completion] = []
        async with aclosing(self._generator.generate(request)) as events:
            async for event in events:
                if isinstance(event, Completion):
                    found.append(event)
        if sorted(one.index for one in found) != sorted(request.sample_indices):
            raise UpstreamContract("the generator did not give every sample once")
        return sorted(found, key=lambda one: one.index)

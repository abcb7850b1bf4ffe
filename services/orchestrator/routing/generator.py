"""ReplicatedGenerator: several generators as one `Generator`. What a replica lost with it is made again elsewhere."""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from services.core.contracts import Completion, GenerateDone, GenerateRequest, GenerationUsage, ModelInfo
from services.core.errors import E2HError, UpstreamContract
from services.core.ports import Generator
from services.core.seeds import MAX_SEED
from services.orchestrator.routing.fleet import Fleet, Policy
from services.orchestrator.routing.metrics import RoutingMetrics
from services.orchestrator.routing.replica import Replica
from services.orchestrator.routing.tries import Tries, ask


class ReplicatedGenerator:
    """All samples of a request come from one generator; those that it did not deliver, from another, seeds the same."""

    def __init__(self, generators: Sequence[Generator], metrics: RoutingMetrics, policy: Policy | None = None) -> None:
        self._fleet = Fleet("generator", generators, metrics, policy)

    async def info(self) -> ModelInfo:
        return await ask(self._fleet, lambda generator: generator.info())

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        request = _seeded(request)
        missing = dict.fromkeys(request.sample_indices)
        tries, tokens, prompts = Tries(self._fleet, request.problem), 0, 0
        while True:
            wanted = _only(request, list(missing))
            replica = tries.next(_tokens(wanted))
            try:
                async with aclosing(self._sample(replica, wanted)) as events:
                    async for event in events:
                        if isinstance(event, GenerateDone):
                            yield _summed(event, prompts, tokens)
                            return
                        if event.index not in missing:
                            raise UpstreamContract("the generator repeated or invented a sample")
                        del missing[event.index]
                        tokens += event.tokens
                        prompts += event.prompt_tokens
                        yield event
                raise UpstreamContract("the generator ended without its last event")
            except E2HError as error:
                # Without its end, but with all its samples, there is nothing to make again.
                await tries.failed(replica, error, final=not missing)
                self._fleet.metrics.remade(len(missing))

    async def ready(self) -> str | None:
        return await self._fleet.ready()

    def checks(self) -> list[Callable[[], Awaitable[str | None]]]:
        """A check of each replica, for what `/ready` calls degraded."""
        return self._fleet.checks()

    async def close(self) -> None:
        """Stop watching; the generators are their owner's to close."""
        await self._fleet.close()

    async def _sample(
        self, replica: Replica[Generator], request: GenerateRequest
    ) -> AsyncGenerator[Completion | GenerateDone, None]:
        """The events of one try at one replica."""
        began: float | None = self._fleet.clock()
        with replica.loaded(_tokens(request)) as load:
            async with aclosing(replica.port.generate(request)) as events:
                while (event := await replica.hear(anext(events, None))) is not None:
                    # A retry is worth its while when one sample can still come: the time to the first is the pace.
                    self._fleet.succeeded(replica, None if began is None else self._fleet.clock() - began)
                    began = None
                    load.lighten(request.sampling.max_tokens)
                    yield event


def _seeded(request: GenerateRequest) -> GenerateRequest:
    """With the seed drawn here, as every try must derive its samples from the same."""
    if request.sampling.seed is not None:
        return request
    sampling = request.sampling.model_copy(update={"seed": secrets.randbelow(MAX_SEED)})
    return request.model_copy(update={"sampling": sampling})


def _only(request: GenerateRequest, indices: list[int]) -> GenerateRequest:
    if len(indices) == request.n:
        return request
    return request.model_copy(update={"n": len(indices), "indices": indices})


def _summed(done: GenerateDone, prompt_tokens: int, completion_tokens: int) -> GenerateDone:
    """The end of the last try, with the tokens of what all tries read and delivered."""
    prompts = max(prompt_tokens, done.usage.prompt_tokens)
    usage = GenerationUsage(prompt_tokens=prompts, completion_tokens=completion_tokens)
    return done.model_copy(update={"usage": usage})


def _tokens(request: GenerateRequest) -> int:
    """The most that the request may make; the prompt, computed once, is little beside it."""
    return request.n * request.sampling.max_tokens

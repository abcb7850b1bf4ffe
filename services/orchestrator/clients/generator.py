"""HttpGenerator: our generator service as a `Generator`."""

from collections.abc import AsyncGenerator

from services.core.contracts import (
    Completion,
    ErrorEnvelope,
    GenerateDone,
    GenerateRequest,
    GeneratorModels,
    ModelInfo,
)
from services.core.errors import UpstreamContract
from services.orchestrator.clients.transport import Upstream
from services.runtime.refusals import refusal

# An error inside a stream has no status line; its code says what it is, and it is the service's fault.
_STREAM_ERROR_STATUS = 503


class HttpGenerator:
    """Samples through `POST /v1/generate` with streaming: each completion is handed on as it arrives."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._info: ModelInfo | None = None

    async def info(self) -> ModelInfo:
        if self._info is None:
            models = (await self._upstream.get("/v1/models", GeneratorModels)).data
            if not models:
                raise UpstreamContract("the generator serves no model")
            self._info = models[0]
        return self._info

    async def ready(self) -> str | None:
        return await self._upstream.ready()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        missing = set(request.sample_indices)
        async with self._upstream.events("/v1/generate", request.model_copy(update={"stream": True})) as events:
            async for event in events:
                match event.event:
                    case "completion":
                        completion = self._upstream.parse(event.data, Completion)
                        if completion.index not in missing:
                            raise UpstreamContract("the generator repeated or invented a sample")
                        missing.discard(completion.index)
                        yield completion
                    case "done":
                        if missing:
                            raise UpstreamContract("the generator ended before its last sample")
                        done = self._upstream.parse(event.data, GenerateDone)
                        if self._info is not None and done.model != self._info.id:
                            self._info = None  # the service came back with another model
                        yield done
                        return
                    case "error":
                        raise refusal(_STREAM_ERROR_STATUS, self._upstream.parse(event.data, ErrorEnvelope).error)
        raise UpstreamContract("the generator's stream ended without its last event")

    async def close(self) -> None:
        await self._upstream.close()

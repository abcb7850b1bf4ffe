"""The generator over HTTP: `POST /v1/generate`, `GET /v1/models`. No logic but the translation."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse
from starlette.responses import Response

from services.core.contracts import Completion, GenerateDone, GenerateRequest, GenerateResponse, GeneratorModels
from services.core.errors import UpstreamContract
from services.core.ports import Generator
from services.runtime.app import error_responses
from services.runtime.bodies import describe_body, json_response, read_body, while_connected
from services.runtime.sse import STREAMED, encode_event, guarded

_EXAMPLE = {"problem": "What is 6 times 7?", "n": 2, "sampling": {"max_tokens": 256, "seed": 7}}


def generator_router(generator: Generator) -> APIRouter:
    """`GET /v1/models` and the sampling route of `generator`."""
    router = generate_router(generator)

    @router.get("/v1/models", response_model=GeneratorModels, responses=error_responses(503))
    async def models() -> Response:
        """The model that is served, with its context length."""
        return json_response(GeneratorModels(data=[await generator.info()]))

    return router


def generate_router(generator: Generator) -> APIRouter:
    """`POST /v1/generate`."""
    router = APIRouter(tags=["generator"])

    @router.post(
        "/v1/generate",
        response_model=GenerateResponse,
        responses=STREAMED | error_responses(400, 413, 415, 422, 429, 502, 503, 504),
        openapi_extra=describe_body(GenerateRequest, _EXAMPLE),
    )
    async def generate(request: Request) -> Response:
        """n samples of one problem. With `stream`, server-sent events: `completion` as each finishes, then `done`."""
        body = await read_body(request, GenerateRequest)
        if body.stream:
            return EventSourceResponse(await while_connected(request, guarded(_events(generator, body))))
        return json_response(await while_connected(request, _collect(generator, body)))

    return router


async def _collect(generator: Generator, body: GenerateRequest) -> GenerateResponse:
    completions: list[Completion] = []
    async with aclosing(generator.generate(body)) as events:
        async for event in events:
            if isinstance(event, GenerateDone):
                completions.sort(key=lambda c: c.index)
                return GenerateResponse(id=event.id, model=event.model, completions=completions, usage=event.usage)
            completions.append(event)
    raise UpstreamContract("the generator ended without its last event")


async def _events(generator: Generator, body: GenerateRequest) -> AsyncGenerator[bytes, None]:
    async with aclosing(generator.generate(body)) as events:
        async for event in events:
            yield encode_event("done" if isinstance(event, GenerateDone) else "completion", event)

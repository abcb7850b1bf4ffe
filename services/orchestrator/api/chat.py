"""OpenAI's routes: `POST /v1/chat/completions`, streamed or not, `GET /v1/models`. No logic but the translation."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.core.contracts import Message, SolveRequest, SolveResponse
from services.core.contracts.chat import MODELS, ChatCompletion, ChatModel, ChatModels, ChatRequest
from services.core.errors import InvalidRequest, ModelNotFound
from services.core.ports import ProblemSolver
from services.orchestrator.chat import Reply, solve_request
from services.runtime.app import error_responses
from services.runtime.bodies import describe_body, json_response, read_body, while_connected
from services.runtime.faults import error_response
from services.runtime.idempotency import PARAMETER, key_of, once, refuse_key
from services.runtime.sse import KEEP_ALIVE_S, STREAMED, EventStream, encode_data, guarded, kept_alive

_DONE = b"data: [DONE]\n\n"
_CHAT = {
    "model": "e2h",
    "messages": [{"role": "user", "content": "What is 6 times 7?"}],
    "seed": 7,
    "e2h": {"n": 4},
}


def chat_router(solver: ProblemSolver, keep_alive_s: float = KEEP_ALIVE_S) -> APIRouter:
    """The routes that answer with `solver`."""
    router = APIRouter(prefix="/v1", tags=["openai"])
    began = int(time.time())
    served = {name: ChatModel(id=name, created=began) for name in MODELS}

    @router.post(
        "/chat/completions",
        response_model=ChatCompletion,
        responses=STREAMED | error_responses(400, 404, 413, 415, 429, 502, 503, 504),
        openapi_extra=describe_body(ChatRequest, _CHAT) | {"parameters": [PARAMETER]},
    )
    async def complete(request: Request) -> Response:
        """A solve in OpenAI's schema. The last user message is the problem; `n` is the number of returned choices.

        `e2h` takes the fields of `/v1/solve`; the model's name says the strategy. With `stream`, chunks: the role when
        the first sample has come, the selected solution when all have; a stream takes no `Idempotency-Key`.
        """
        key_of(request)  # the fault of a header is 422 here too
        try:
            body = await read_body(request, ChatRequest, unknown_field="unsupported_parameter")
            asked, context = solve_request(body)
            if body.stream:
                refuse_key(request, "a stream is not sent again; leave the key out, or `stream`")
                events = kept_alive(_chunks(solver, body, asked, context), keep_alive_s)
                return EventStream(await while_connected(request, guarded(events)))
            return await once(request, body, lambda: _answer(solver, body, asked, context))
        except InvalidRequest as error:
            # What is 422 on our own routes is 400 in OpenAI's schema, with the same code.
            return error_response(error, 400 if error.status == InvalidRequest.status else error.status)

    @router.get("/models", response_model=ChatModels)
    async def models() -> Response:
        """The strategies, as models."""
        return json_response(ChatModels(data=list(served.values())))

    @router.get("/models/{name:path}", response_model=ChatModel, responses=error_responses(404))
    async def model(name: str) -> Response:
        """One of them."""
        if name not in served:
            raise ModelNotFound("no such model")
        return json_response(served[name])

    return router


async def _answer(
    solver: ProblemSolver, body: ChatRequest, asked: SolveRequest, context: Sequence[Message]
) -> Response:
    reply = Reply(body)
    return json_response(reply.whole(await solver.solve(asked, context)))


async def _chunks(
    solver: ProblemSolver, body: ChatRequest, asked: SolveRequest, context: Sequence[Message]
) -> AsyncGenerator[bytes, None]:
    reply = Reply(body)
    opened = False
    async with aclosing(solver.events(asked, context)) as events:
        async for event in events:
            if not opened:
                opened = True
                yield encode_data(reply.opening())
            if isinstance(event, SolveResponse):
                for chunk in reply.chunks(event):
                    yield encode_data(chunk)
    yield _DONE

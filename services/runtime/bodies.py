"""Request bodies in, contract types out; contract types out as JSON. The only reader of request bytes.

FastAPI's own body handling is not used: it answers NaN and lone surrogates with 500, echoes the input back, and
validates in a mode that a strict wire type (enums from strings) does not pass.
"""

import asyncio
import json
import re
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from services.core.errors import InvalidJson, InvalidRequest, UnsupportedMediaType
from services.runtime.budget import require_time
from services.runtime.faults import invalid_request

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


async def read_body(request: Request, model: type[Model], unknown_field: str = InvalidRequest.code) -> Model:
    """The validated body. Raises the `InvalidRequest` that says what is wrong with it.

    `unknown_field` is the code of a field that `model` does not have. Raises `DeadlineExceeded` when the caller's
    budget ran out while it arrived.
    """
    raw = await _read_bytes(request)
    require_time()
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        if _holds_lone_surrogate(raw):
            raise InvalidRequest("a string holds a lone surrogate", code="invalid_unicode") from None
        raise invalid_request(error, unknown_field) from None


async def _read_bytes(request: Request) -> bytes:
    """The body, whose size and time `intake.py` bounds."""
    _require_json(request)
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidJson("the body is not UTF-8", code="invalid_encoding") from None
    return bytes(raw)


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the caller closes the connection. The body must have been read.

    Raises `ClientDisconnect` when the caller is gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _holds_lone_surrogate(raw: bytes) -> bool:
    """Whether the body would be JSON but for a lone surrogate, which pydantic's parser calls a syntax error."""
    if not _SURROGATE.search(raw):
        return False
    try:
        json.dumps(json.loads(raw), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType("send the body as content-type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("compressed bodies are not accepted")


def json_response(body: BaseModel, headers: dict[str, str] | None = None) -> Response:
    """`body` as a 200 response, serialised once by pydantic."""
    return Response(body.model_dump_json(), media_type="application/json", headers=headers)


def describe_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body with `read_body(request, model)`."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def add_schemas(document: dict[str, Any], models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """Put the models that `describe_body` refers to into the document's components."""
    components = document.setdefault("components", {}).setdefault("schemas", {})
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        components.update(schema.pop("$defs", {}))
        components[model.__name__] = schema
    return document

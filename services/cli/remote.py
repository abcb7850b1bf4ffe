"""Asking a running server: one POST, its faults as our exceptions. The API key comes from `E2H_API_KEY` alone: what
stands on a command line is read by every user of the machine."""

import os
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from services.core.errors import UpstreamContract, UpstreamUnavailable
from services.runtime.refusals import read_refusal

Model = TypeVar("Model", bound=BaseModel)
API_KEY_VARIABLE = "E2H_API_KEY"
# A solve on a CPU takes minutes; a person who waits can interrupt.
TIMEOUT = httpx2.Timeout(None, connect=5.0)


def post(url: str, path: str, body: BaseModel, model: type[Model]) -> Model:
    """The server's answer as `model`. Raises the `E2HError` that the server told."""
    try:
        response = httpx2.post(
            url.rstrip("/") + path,
            content=body.model_dump_json(exclude_unset=True),
            headers=headers(),
            timeout=TIMEOUT,
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UpstreamUnavailable(f"no server answers there ({type(error).__name__})") from error
    if not response.is_success:
        told = read_refusal(response.status_code, response.content, response.headers)
        raise told or UpstreamContract("the server there does not speak e2h's API")
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise UpstreamContract("the server there does not speak e2h's API") from error


def headers() -> dict[str, str]:
    """Of every request: its content type, and the API key where there is one."""
    plain, key = {"content-type": "application/json"}, os.environ.get(API_KEY_VARIABLE, "").strip()
    return {**plain, "authorization": f"Bearer {key}"} if key else plain

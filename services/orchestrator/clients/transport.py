"""HTTP to one upstream service: connections, and its faults as our exceptions. Knows no contract."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from services.core.errors import MethodNotAllowed, NotFound, UpstreamContract, UpstreamUnavailable
from services.runtime.context import request_id
from services.runtime.refusals import read_refusal

Model = TypeVar("Model", bound=BaseModel)
# A probe that takes longer says enough.
_PROBE_TIMEOUT_S = 2.0


class Upstream:
    """One base URL of a service of ours. `name` is what its faults are called by."""

    def __init__(self, name: str, client: httpx2.AsyncClient) -> None:
        self.name = name
        self._client = client

    async def get(self, path: str, model: type[Model]) -> Model:
        """The body of a GET, as `model`."""
        with self._faults():
            response = await self._client.get(path, headers=_headers())
        self._raise_refusal(response)
        return self.parse(response.content, model)

    async def post(self, path: str, body: BaseModel, model: type[Model]) -> tuple[Model, httpx2.Headers]:
        """The body and the headers of a POST's answer."""
        with self._faults():
            response = await self._client.post(path, content=body.model_dump_json(), headers=_headers())
        self._raise_refusal(response)
        return self.parse(response.content, model), response.headers

    @asynccontextmanager
    async def events(self, path: str, body: BaseModel) -> AsyncIterator[httpx2.EventSource]:
        """Server-sent events of a POST. Leaving the block closes the connection, which stops the work behind it."""
        content = body.model_dump_json()
        with self._faults():
            async with self._client.stream("POST", path, content=content, headers=_headers()) as response:
                if not response.is_success:
                    await response.aread()
                self._raise_refusal(response)
                yield httpx2.EventSource(response)

    async def ready(self) -> str | None:
        """None when `GET /ready` says so, else the reason why not."""
        try:
            response = await self._client.get("/ready", timeout=_PROBE_TIMEOUT_S)
        except httpx2.HTTPError:
            return f"the {self.name} does not answer"
        return None if response.is_success else f"the {self.name} is not ready"

    async def close(self) -> None:
        await self._client.aclose()

    def parse(self, content: bytes | str, model: type[Model]) -> Model:
        """`content` as `model`. Raises `UpstreamContract` when it is not."""
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise UpstreamContract(f"the {self.name} answered outside of its contract") from error

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            raise UpstreamUnavailable(f"the {self.name} cannot be reached ({type(error).__name__})") from error

    def _raise_refusal(self, response: httpx2.Response) -> None:
        if response.is_success:
            return
        error = read_refusal(response.status_code, response.content, response.headers)
        if error is None:
            raise UpstreamUnavailable(f"the {self.name} failed with status {response.status_code}")
        if isinstance(error, NotFound | MethodNotAllowed):
            raise UpstreamContract(f"the {self.name} does not know this route; its URL may be another service's")
        raise error


def upstream(name: str, base_url: str, *, connect_timeout_s: float, read_timeout_s: float) -> Upstream:
    """An upstream with its own connection pool. No proxy of the environment stands between our services."""
    timeout = httpx2.Timeout(read_timeout_s, connect=connect_timeout_s)
    # Every sample of a solve holds a connection while it is scored; more than these wait for one.
    limits = httpx2.Limits(max_connections=256, max_keepalive_connections=64)
    return Upstream(name, httpx2.AsyncClient(base_url=base_url, timeout=timeout, limits=limits, trust_env=False))


def _headers() -> dict[str, str]:
    headers = {"content-type": "application/json"}
    current = request_id()
    return {**headers, "x-request-id": current} if current else headers

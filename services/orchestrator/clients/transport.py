"""HTTP to one upstream service: connections, and its faults as our exceptions. Knows no contract."""

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import httpx2
from pydantic import BaseModel, SecretStr, ValidationError

from services.core.errors import DeadlineExceeded, MethodNotAllowed, NotFound, UpstreamContract, UpstreamUnavailable
from services.runtime.budget import budget_headers
from services.runtime.context import request_id, time_left
from services.runtime.refusals import read_refusal

Model = TypeVar("Model", bound=BaseModel)
# A probe that takes longer says enough.
_PROBE_TIMEOUT_S = 2.0
# Clocks of event loops are this coarse: a read cut at the deadline may end a little before it.
_CLOCK_S = 0.005


class Upstream:
    """One base URL of a service of ours. `name` is what its faults are called by.

    Every request says how much of the current task's time budget is left and waits no longer than that: past it, or
    with nothing left at the start, `DeadlineExceeded`. `probes` are connections of their own for `ready`, which must
    not wait behind the work that it asks about.
    """

    def __init__(self, name: str, client: httpx2.AsyncClient, probes: httpx2.AsyncClient | None = None) -> None:
        self.name = name
        self._client = client
        self._probes = probes or client

    async def get(self, path: str, model: type[Model]) -> Model:
        """The body of a GET, as `model`."""
        with self._faults():
            response = await self._client.get(path, headers=_headers(), timeout=within_budget(self._client.timeout))
        self._raise_refusal(response)
        return self.parse(response.content, model)

    async def post(self, path: str, body: BaseModel, model: type[Model]) -> tuple[Model, httpx2.Headers]:
        """The body and the headers of a POST's answer."""
        with self._faults():
            content, timeout = body.model_dump_json(), within_budget(self._client.timeout)
            response = await self._client.post(path, content=content, headers=_headers(), timeout=timeout)
        self._raise_refusal(response)
        return self.parse(response.content, model), response.headers

    @asynccontextmanager
    async def events(self, path: str, body: BaseModel) -> AsyncIterator[httpx2.EventSource]:
        """Server-sent events of a POST. Leaving the block closes the connection, which stops the work behind it."""
        content, timeout = body.model_dump_json(), within_budget(self._client.timeout)
        with self._faults():
            opening = self._client.stream("POST", path, content=content, headers=_headers(), timeout=timeout)
            async with opening as response:
                if not response.is_success:
                    await response.aread()
                self._raise_refusal(response)
                yield httpx2.EventSource(response)

    async def ready(self) -> str | None:
        """None when `GET /ready` says so, else the reason why not."""
        try:
            response = await self._probes.get("/ready", timeout=_PROBE_TIMEOUT_S)
        except httpx2.HTTPError:
            return f"the {self.name} does not answer"
        return None if response.is_success else f"the {self.name} is not ready"

    async def close(self) -> None:
        await self._client.aclose()
        await self._probes.aclose()

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
            if isinstance(error, httpx2.TimeoutException):
                raise_past_deadline(error)
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


def upstream(
    name: str, base_url: str, *, connect_timeout_s: float, read_timeout_s: float, api_key: SecretStr | None = None
) -> Upstream:
    """An upstream with its own connection pool, asked with `api_key`.

    No proxy of the environment stands between our services.
    """
    timeout = httpx2.Timeout(read_timeout_s, connect=connect_timeout_s)
    # Every sample of a solve holds a connection while it is scored; more than these wait for one.
    limits = httpx2.Limits(max_connections=256, max_keepalive_connections=64)
    # Probes need no key, and those who do not need a secret do not get it.
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key.get_secret_value()}"}
    client = httpx2.AsyncClient(base_url=base_url, timeout=timeout, limits=limits, headers=headers, trust_env=False)
    return Upstream(name, client, httpx2.AsyncClient(base_url=base_url, trust_env=False))


def within_budget(usual: httpx2.Timeout) -> httpx2.Timeout:
    """`usual`, with no part longer than what is left of the current request's time budget."""
    left = max(0.0, time_left())
    if math.isinf(left):
        return usual
    parts = (usual.connect, usual.read, usual.write, usual.pool)
    connect, read, write, pool = (left if part is None else min(part, left) for part in parts)
    return httpx2.Timeout(connect=connect, read=read, write=write, pool=pool)


def raise_past_deadline(cause: Exception | None = None) -> None:
    """Raise `DeadlineExceeded` when nothing is left of the current request's time budget."""
    if time_left() < _CLOCK_S:
        raise DeadlineExceeded("the request's time budget ran out") from cause


def _headers() -> dict[str, str]:
    headers = {"content-type": "application/json", **budget_headers()}
    current = request_id()
    return {**headers, "x-request-id": current} if current else headers

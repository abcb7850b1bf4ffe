"""The web app of any service: routes of its own plus health, readiness, metrics and the error envelope."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services import __version__
from services.core.contracts import ErrorEnvelope, Wire
from services.core.errors import E2HError, MethodNotAllowed, NotFound
from services.runtime.bodies import add_schemas, json_response
from services.runtime.faults import error_response, log_cause
from services.runtime.metrics import HttpMetrics, exposition
from services.runtime.middleware import RequestContext
from services.runtime.settings import RuntimeSettings


class Health(Wire):
    """The process is alive; says nothing about its models."""

    status: Literal["ok"] = "ok"


class Readiness(Wire):
    """Whether the service takes work. `degraded` lists parts that are down and not needed for it."""

    status: Literal["ready", "loading", "draining", "not_ready"]
    reason: str | None = None
    degraded: list[str] = Field(default_factory=list)


@dataclass
class Lifecycle:
    """Where a service stands between start and stop. The composition root moves it; `/ready` reads it."""

    phase: Literal["loading", "serving", "draining"] = "loading"
    checks: Sequence[Callable[[], Awaitable[str | None]]] = ()
    optional: Sequence[Callable[[], Awaitable[str | None]]] = ()

    async def readiness(self) -> Readiness:
        """Ready when serving and no check names a reason against it; what optional parts say makes it degraded."""
        if self.phase == "loading":
            return Readiness(status="loading", reason="the model is loading")
        if self.phase == "draining":
            return Readiness(status="draining", reason="the service is stopping")
        for check in self.checks:
            reason = await check()
            if reason is not None:
                return Readiness(status="not_ready", reason=reason)
        told = await asyncio.gather(*(check() for check in self.optional))
        return Readiness(status="ready", degraded=[reason for reason in told if reason is not None])


def build_app(
    *,
    title: str,
    routers: Sequence[APIRouter],
    bodies: Iterable[type[BaseModel]],
    lifecycle: Lifecycle,
    registry: CollectorRegistry,
    settings: RuntimeSettings,
) -> FastAPI:
    """An app that serves `routers`. `bodies` are the request models that the routes describe in the OpenAPI page."""
    app = FastAPI(title=title, version=__version__, redoc_url=None, redirect_slashes=False)
    app.state.max_body_bytes = settings.max_body_bytes
    app.add_middleware(RequestContext, metrics=HttpMetrics(registry))
    app.add_exception_handler(E2HError, _on_fault)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.include_router(_own_routes(lifecycle, registry))
    for router in routers:
        app.include_router(router)
    models: list[type[BaseModel]] = [*bodies, ErrorEnvelope]
    app.openapi = lambda: _openapi(app, models)  # type: ignore[method-assign]
    return app


def _own_routes(lifecycle: Lifecycle, registry: CollectorRegistry) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/health", response_model=Health)
    async def health() -> Response:
        """The process is alive."""
        return json_response(Health())

    @router.get("/ready", response_model=Readiness, responses={503: {"model": Readiness}})
    async def ready() -> Response:
        """200 when the service takes work, else 503 and the reason."""
        state = await lifecycle.readiness()
        if state.status == "ready":
            return json_response(state)
        return Response(
            state.model_dump_json(), status_code=503, media_type="application/json", headers={"retry-after": "1"}
        )

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus exposition."""
        return exposition(registry)

    return router


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these error statuses."""
    return {status: {"model": ErrorEnvelope} for status in statuses}


async def _on_fault(_: Request, error: Exception) -> Response:
    if not isinstance(error, E2HError):
        raise error
    if error.status >= 500:
        log_cause(error)
    return error_response(error)


async def _on_http_exception(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        response = error_response(MethodNotAllowed("this route does not take this method"))
        response.headers.update(error.headers or {})
        return response
    return error_response(NotFound("no such route"))


def _openapi(app: FastAPI, models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        app.openapi_schema = add_schemas(document, models)
    return app.openapi_schema

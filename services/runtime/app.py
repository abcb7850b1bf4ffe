"""The web app of any service: routes of its own plus health, readiness, metrics and the error envelope."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services import __version__
from services.core.contracts import ErrorEnvelope, Wire
from services.core.errors import E2HError, MethodNotAllowed, NotFound
from services.runtime.auth import OPEN_PATHS, Authentication, KeyRing, require_scopes
from services.runtime.bodies import add_schemas, json_response
from services.runtime.faults import error_response, log_cause
from services.runtime.idempotency import IdempotentAnswers, takes_keys
from services.runtime.intake import BodyLimits
from services.runtime.lag import LoopLag
from services.runtime.limits import RateLimiter, RateLimits
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
    """An app that serves `routers`. `bodies` are the request models that the routes describe in the OpenAPI page.

    Raises `ValueError` for a route that no scope of an API key opens.
    """
    limiter = RateLimiter(settings, registry)
    keyed = any(takes_keys(route) for router in routers for route in router.routes)
    # Where no route takes a key, its redis is neither asked nor waited for.
    idempotency = IdempotentAnswers(settings, registry) if keyed else None
    lag = LoopLag(registry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(lag.watch())
        yield
        watching.cancel()
        await limiter.close()
        if idempotency is not None:
            await idempotency.close()

    app = FastAPI(title=title, version=__version__, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.keys = None if settings.api_keys_file is None else KeyRing(settings.api_keys_file)
    if idempotency is not None:
        app.state.idempotency = idempotency
        lifecycle.optional = [*lifecycle.optional, idempotency.ready]
    _add_layers(app, lifecycle, limiter, registry, settings)
    app.add_exception_handler(E2HError, _on_fault)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.include_router(_own_routes(lifecycle, registry))
    for router in routers:
        app.include_router(router)
    require_scopes(route.path for route in app.routes if isinstance(route, APIRoute))
    models: list[type[BaseModel]] = [*bodies, ErrorEnvelope]
    app.openapi = lambda: _openapi(app, models)  # type: ignore[method-assign]
    return app


def _add_layers(
    app: FastAPI,
    lifecycle: Lifecycle,
    limiter: RateLimiter,
    registry: CollectorRegistry,
    settings: RuntimeSettings,
) -> None:
    """The layers that a request passes before a route, innermost first. What one raises, the outermost answers."""
    app.add_middleware(BodyLimits, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    app.add_middleware(RateLimits, limiter=limiter, default=settings.rate_limit)
    lifecycle.optional = [*lifecycle.optional, limiter.ready]
    if app.state.keys is not None:
        failures = settings.auth_failure_rate
        app.add_middleware(Authentication, ring=app.state.keys, registry=registry, failure_rate=failures)
        lifecycle.optional = [*lifecycle.optional, app.state.keys.ready]
    app.add_middleware(RequestContext, metrics=HttpMetrics(registry), draining=lambda: lifecycle.phase == "draining")


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
        _describe_refusals(document, keyed=app.state.keys is not None)
        app.openapi_schema = add_schemas(document, models)
    return app.openapi_schema


def _describe_refusals(document: dict[str, Any], *, keyed: bool) -> None:
    """What any route may answer before it is asked (401, 408, 413, 429), and the key that it wants."""
    envelope = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].setdefault("default", {"description": "A refusal", "content": envelope})
            if keyed and path not in OPEN_PATHS:
                operation["security"] = [{"bearer": []}]
    if keyed:
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["bearer"] = {"type": "http", "scheme": "bearer", "description": "An API key (`e2h keys create`)"}

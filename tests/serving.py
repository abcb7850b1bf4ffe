"""Apps as the composition roots build them, around any ports; and a server on a real loopback socket for them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

import uvicorn
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.contracts import ChatRequest, GenerateRequest, GradeRequest, JobRequest
from services.core.ports import Generator, Verifier
from services.generator.api import generate_router, generator_router
from services.orchestrator.api.chat import chat_router
from services.orchestrator.api.grade import grade_router
from services.orchestrator.api.solve import BODIES, solve_router
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.solver import Solver
from services.runtime.app import Lifecycle, build_app
from services.runtime.serving import server_config
from services.runtime.settings import RuntimeSettings
from services.runtime.verifier_routes import VERIFIER_BODIES, rerank_router, scoring_router
from services.verifier.api import verifier_router
from tests.fakes import InlineGrader


def serving_app(
    routers: Sequence[APIRouter],
    lifecycle: Lifecycle,
    registry: CollectorRegistry | None = None,
    settings: RuntimeSettings | None = None,
) -> FastAPI:
    """An app in phase serving."""
    lifecycle.phase = "serving"
    return build_app(
        title="test",
        routers=routers,
        bodies=[*BODIES, *VERIFIER_BODIES, ChatRequest, GradeRequest, GenerateRequest, JobRequest],
        lifecycle=lifecycle,
        registry=registry or CollectorRegistry(),
        settings=settings or RuntimeSettings(),
    )


def generator_app(generator: Generator) -> FastAPI:
    return serving_app([generator_router(generator)], Lifecycle(checks=[generator.ready]))


def verifier_app(verifier: Verifier) -> FastAPI:
    return serving_app([verifier_router(verifier)], Lifecycle(checks=[verifier.ready]))


def all_in_one_app(
    generator: Generator,
    verifier: Verifier,
    settings: RuntimeSettings | None = None,
    more: Sequence[APIRouter] = (),
) -> FastAPI:
    """Every route behind one port, with metrics in one registry."""
    registry = CollectorRegistry()
    routers = [*_orchestrator_routers(generator, verifier, registry), generate_router(generator), *more]
    return serving_app(routers, Lifecycle(checks=[generator.ready, verifier.ready]), registry, settings)


def orchestrator_app(
    generator: Generator,
    verifier: Verifier,
    settings: RuntimeSettings | None = None,
    registry: CollectorRegistry | None = None,
) -> FastAPI:
    """The routes of the orchestrator's process, around any ports."""
    registry = registry or CollectorRegistry()
    routers = _orchestrator_routers(generator, verifier, registry)
    return serving_app(routers, Lifecycle(checks=[generator.ready, verifier.ready]), registry, settings)


def _orchestrator_routers(generator: Generator, verifier: Verifier, registry: CollectorRegistry) -> list[APIRouter]:
    grader = InlineGrader()
    solver = Solver(generator, verifier, grader, SolveMetrics(registry))
    return [
        solve_router(solver, grader),
        chat_router(solver),
        grade_router(grader),
        scoring_router(verifier),
        rerank_router(verifier),
    ]


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Until told to stop, without uvicorn's polling, which would cost each test a tenth of a second."""
        await self.on_tick(0)
        await self.stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to pytest."""
        yield


@dataclass(frozen=True)
class Address:
    """Where a test server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextlib.asynccontextmanager
async def served(
    app: ASGIApp, settings: RuntimeSettings | None = None, keep_alive_s: int | None = None
) -> AsyncIterator[Address]:
    """The app on an ephemeral loopback port, in the running event loop, on connections as `serving.py` makes them."""
    settings = settings or RuntimeSettings(drain_timeout_s=1.0)
    config = server_config(app, 0, settings)
    config.lifespan = "off"
    config.timeout_keep_alive = config.timeout_keep_alive if keep_alive_s is None else keep_alive_s
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    await server.listening.wait()
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield Address(host, port)
    finally:
        server.stopping.set()
        await serving


class Switchboard:
    """An app that hands over to another, so that one server can stand before many apps in turn."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


async def eventually(condition: Callable[[], bool], tries: int = 200) -> bool:
    """Whether `condition()` comes true while the event loop runs."""
    for _ in range(tries):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return condition()

"""The orchestrator as a process of its own: `python -m services.orchestrator`. Its composition root."""

import asyncio
import sys

import httpx2
import openai
from prometheus_client import CollectorRegistry

from services.core.contracts import ChatRequest, GradeRequest
from services.orchestrator.api.chat import chat_router
from services.orchestrator.api.grade import grade_router
from services.orchestrator.api.solve import BODIES, solve_router
from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.openai import OpenAIGenerator
from services.orchestrator.clients.transport import Upstream, upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.routing import ReplicatedGenerator, ReplicatedVerifier, RoutingMetrics
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.solver import Solver
from services.runtime.app import Lifecycle, build_app
from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings, load_settings
from services.runtime.verifier_routes import VERIFIER_BODIES, rerank_router, scoring_router


def build(settings: OrchestratorSettings, runtime: RuntimeSettings) -> Service:
    """The orchestrator's app around clients of the other two services."""
    registry = CollectorRegistry()
    generators = build_generators(settings)
    verifiers = [HttpVerifier(_upstream("verifier", url, settings)) for url in settings.verifier_url]
    routing = RoutingMetrics(registry)
    generator, verifier = ReplicatedGenerator(generators, routing), ReplicatedVerifier(verifiers, routing)
    grader = GradingPool(load_settings(GradingSettings), GradingMetrics(registry))
    solver = Solver(generator, verifier, grader, SolveMetrics(registry))
    lifecycle = Lifecycle(
        checks=[grader.ready, generator.ready, verifier.ready], optional=[*generator.checks(), *verifier.checks()]
    )
    app = build_app(
        title="e2h",
        # The verifier's routes, passed through, so that one public port is enough.
        routers=[
            solve_router(solver, grader),
            chat_router(solver),
            grade_router(grader),
            scoring_router(verifier),
            rerank_router(verifier),
        ],
        bodies=[*BODIES, *VERIFIER_BODIES, ChatRequest, GradeRequest],
        lifecycle=lifecycle,
        registry=registry,
        settings=runtime,
    )

    async def start() -> None:
        """Nothing to load but the grading processes; upstreams may come later, and `/ready` tells."""
        await grader.start()

    async def stop() -> None:
        await asyncio.gather(generator.close(), verifier.close())  # they use the clients that are closed next
        await asyncio.gather(*(client.close() for client in (*generators, *verifiers)), grader.close())

    return Service(app, lifecycle, start=start, stop=stop)


def build_generators(settings: OrchestratorSettings) -> list[HttpGenerator] | list[OpenAIGenerator]:
    """Our generator services, or the OpenAI-compatible servers that the settings name instead."""
    if settings.openai_base_url is None:
        return [HttpGenerator(_upstream("generator", url, settings)) for url in settings.generator_url]
    return [_openai_generator(url, settings) for url in settings.openai_base_url]


def _openai_generator(url: str, settings: OrchestratorSettings) -> OpenAIGenerator:
    client = openai.AsyncOpenAI(
        base_url=url,
        api_key=settings.openai_api_key.get_secret_value(),
        timeout=httpx2.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s),
        max_retries=0,  # retries have one place, and it is not a client library
    )
    return OpenAIGenerator(
        client,
        settings.openai_model,
        settings.openai_style,
        settings.openai_system_prompt,
        settings.openai_max_concurrency,
    )


def _upstream(name: str, url: str, settings: OrchestratorSettings) -> Upstream:
    return upstream(
        name,
        url,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        api_key=settings.upstream_api_key,
    )


def main() -> int:
    """Serve until stopped; the exit code is `run`'s."""
    settings, runtime = load_settings(OrchestratorSettings), load_settings(RuntimeSettings)
    configure_logging(runtime)
    return run(build(settings, runtime), settings.port, runtime)


if __name__ == "__main__":
    sys.exit(main())

"""A worker of jobs that a problem with the word poison ends at once, for tests of what ends its workers.

python -m tests.integration.deadly_worker PORT
"""

import os
from collections.abc import AsyncGenerator

from prometheus_client import CollectorRegistry

from services.core.contracts import Completion, GenerateDone, GenerateRequest, ModelInfo
from services.core.ports import Generator
from services.orchestrator.jobs.process import build_worker, pages
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.upstreams import Upstreams
from services.runtime.app import Lifecycle
from services.runtime.logs import configure_logging
from services.runtime.serving import run
from services.runtime.settings import RuntimeSettings, load_settings
from tests.fakes import InlineGrader


class Deadly:
    """A `Generator` before another."""

    def __init__(self, inner: Generator) -> None:
        self._inner = inner

    async def info(self) -> ModelInfo:
        return await self._inner.info()

    async def ready(self) -> str | None:
        return await self._inner.ready()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        if "poison" in request.problem:
            os._exit(9)
        async for event in self._inner.generate(request):
            yield event


def run_test_worker(port: int, *, deadly: bool) -> int:
    """`e2h worker` without grading processes, which take most of its start; with the poison if it is `deadly`."""
    runtime = load_settings(RuntimeSettings)
    configure_logging(runtime)
    registry = CollectorRegistry()
    upstreams = Upstreams(load_settings(OrchestratorSettings), registry)
    generator: Generator = Deadly(upstreams.generator) if deadly else upstreams.generator
    settings = load_settings(JobSettings)
    worker = build_worker(settings, generator, upstreams.verifier, InlineGrader(), registry)

    async def stop() -> None:
        await worker.stop()
        await upstreams.close()

    return run(pages(Lifecycle(checks=[worker.ready]), worker.start, stop, registry, runtime), port, runtime)

"""A worker of jobs as a process of its own: `e2h worker`. Its composition root."""

from collections.abc import Callable, Coroutine
from typing import Any

from prometheus_client import CollectorRegistry

from services.core.errors import ModelLoadError
from services.core.ports import Generator, Grader, Verifier
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings
from services.orchestrator.jobs.execution import Executor
from services.orchestrator.jobs.metrics import JobMetrics
from services.orchestrator.jobs.results import Shelf
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.worker import JobWorker
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.upstreams import Upstreams
from services.runtime.app import Lifecycle, build_app
from services.runtime.serving import Service
from services.runtime.settings import RuntimeSettings, load_settings

Step = Callable[[], Coroutine[Any, Any, None]]


def build_worker(
    settings: JobSettings, generator: Generator, verifier: Verifier, grader: Grader, registry: CollectorRegistry
) -> JobWorker:
    """A worker over any ports. Raises `ModelLoadError` when the settings name no redis."""
    if settings.redis_url is None or settings.results_url is None:
        raise ModelLoadError("a worker needs a redis", "set E2H_JOBS_REDIS_URL and E2H_JOBS_RESULTS_URL")
    executor = Executor(generator, verifier, grader, Shelf(settings.results_url), settings)
    return JobWorker(settings, executor, JobMetrics(registry))


def build(settings: JobSettings, orchestrator: OrchestratorSettings, runtime: RuntimeSettings) -> Service:
    """A worker with a grading pool of its own, over the upstreams that the orchestrator's settings name.

    Raises `ModelLoadError` when the settings name no redis.
    """
    registry = CollectorRegistry()
    upstreams = Upstreams(orchestrator, registry)
    generator, verifier = upstreams.generator, upstreams.verifier
    grader = GradingPool(load_settings(GradingSettings), GradingMetrics(registry))
    worker = build_worker(settings, generator, verifier, grader, registry)

    async def start() -> None:
        await grader.start()
        await worker.start()

    async def stop() -> None:
        await worker.stop()
        await upstreams.close()
        await grader.close()

    lifecycle = Lifecycle(
        checks=[grader.ready, worker.ready],
        optional=[generator.ready, verifier.ready, *generator.checks(), *verifier.checks()],
    )
    return pages(lifecycle, start, stop, registry, runtime)


def pages(
    lifecycle: Lifecycle, start: Step, stop: Step, registry: CollectorRegistry, runtime: RuntimeSettings
) -> Service:
    """What a process without routes of its own serves: probes and metrics."""
    app = build_app(title="e2h worker", routers=[], bodies=[], lifecycle=lifecycle, registry=registry, settings=runtime)
    return Service(app, lifecycle, start=start, stop=stop)

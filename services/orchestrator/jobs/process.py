"""A worker of jobs as a process of its own: `e2h worker`. Its composition root."""

from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import CollectorRegistry

from services.core.errors import ModelLoadError
from services.core.ports import Generator, Verifier
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

Check = Callable[[], Awaitable[str | None]]


class WorkerParts:
    """A worker with a grading pool of its own, over any two ports."""

    def __init__(
        self, settings: JobSettings, generator: Generator, verifier: Verifier, registry: CollectorRegistry
    ) -> None:
        """Raises `ModelLoadError` when the settings name no redis."""
        if settings.redis_url is None or settings.results_url is None:
            raise ModelLoadError("a worker needs a redis", "set E2H_JOBS_REDIS_URL and E2H_JOBS_RESULTS_URL")
        self.grader = GradingPool(load_settings(GradingSettings), GradingMetrics(registry))
        executor = Executor(generator, verifier, self.grader, Shelf(settings.results_url), settings)
        self.worker = JobWorker(settings, executor, JobMetrics(registry))

    async def start(self) -> None:
        """Begin to take items. Raises `ModelLoadError` when grading does not start or redis may not keep jobs."""
        await self.grader.start()
        await self.worker.start()

    async def stop(self) -> None:
        """Let what runs end, or give it back."""
        await self.worker.stop()
        await self.grader.close()


def build(settings: JobSettings, orchestrator: OrchestratorSettings, runtime: RuntimeSettings) -> Service:
    """The worker over the upstreams that the orchestrator's settings name. Raises `ModelLoadError` without a redis."""
    registry = CollectorRegistry()
    upstreams = Upstreams(orchestrator, registry)
    generator, verifier = upstreams.generator, upstreams.verifier
    parts = WorkerParts(settings, generator, verifier, registry)
    optional = [generator.ready, verifier.ready, *generator.checks(), *verifier.checks()]
    return worker_service(parts, optional, upstreams.close, registry, runtime)


def worker_service(
    parts: WorkerParts,
    optional: Sequence[Check],
    close: Callable[[], Awaitable[None]],
    registry: CollectorRegistry,
    runtime: RuntimeSettings,
) -> Service:
    """A worker with pages for probes and metrics. `close` ends what its ports use, after it has stopped."""
    lifecycle = Lifecycle(checks=[parts.grader.ready, parts.worker.ready], optional=optional)
    app = build_app(title="e2h worker", routers=[], bodies=[], lifecycle=lifecycle, registry=registry, settings=runtime)

    async def stop() -> None:
        await parts.stop()
        await close()

    return Service(app, lifecycle, start=parts.start, stop=stop)

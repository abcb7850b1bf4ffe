"""All three services in one process, no sockets between them: the composition root of `e2h up` and `e2h solve`."""

import asyncio

from prometheus_client import CollectorRegistry

from services.core.contracts import ChatRequest, GenerateRequest, GradeRequest, JobRequest
from services.generator.admission import BoundedGenerator
from services.generator.api import generate_router
from services.generator.engine import VllmGenerator
from services.generator.metrics import GeneratorMetrics
from services.generator.settings import GeneratorSettings
from services.orchestrator.admission import Admission, FairSolver
from services.orchestrator.api.chat import chat_router
from services.orchestrator.api.grade import grade_router
from services.orchestrator.api.jobs import jobs_router
from services.orchestrator.api.solve import BODIES, solve_router
from services.orchestrator.evaluation.settings import EvaluationSettings
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings
from services.orchestrator.jobs.process import build_worker
from services.orchestrator.jobs.service import Jobs
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.worker import JobWorker
from services.orchestrator.metrics import AdmissionMetrics, SolveMetrics
from services.orchestrator.settings import AdmissionSettings
from services.orchestrator.solver import Solver
from services.runtime.app import Lifecycle, build_app
from services.runtime.serving import Service
from services.runtime.settings import RuntimeSettings, load_settings
from services.runtime.verifier_routes import VERIFIER_BODIES, rerank_router, scoring_router
from services.verifier.cache import build_score_cache
from services.verifier.metrics import VerifierMetrics
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings


class AllInOne:
    """The generator's engine, the verifier's model and the solver over them."""

    def __init__(
        self, generator: GeneratorSettings, verifier: VerifierSettings, jobs: JobSettings | None = None
    ) -> None:
        """With `jobs`, items of jobs are run here too. Raises `ModelLoadError` when those name no redis."""
        self.registry = CollectorRegistry()
        self.generator = VllmGenerator(generator, GeneratorMetrics(self.registry))
        self.cache = build_score_cache(verifier, self.registry)
        self.verifier = LocalVerifier(verifier, VerifierMetrics(self.registry), self.cache)
        self.grader = GradingPool(load_settings(GradingSettings), GradingMetrics(self.registry))
        self.bounded = BoundedGenerator(self.generator, generator.max_queue_tokens, self.registry)
        self.solver = Solver(self.bounded, self.verifier, self.grader, SolveMetrics(self.registry))
        admission = Admission(load_settings(AdmissionSettings), AdmissionMetrics(self.registry))
        self.fair = FairSolver(self.solver, admission)
        copies = load_settings(EvaluationSettings).data_dir
        self.jobs = Jobs(jobs or load_settings(JobSettings), self.generator, self.verifier, copies)
        # Jobs bound themselves, and are not to take the room of those who wait for an answer.
        self.worker: JobWorker | None = None
        if jobs is not None:
            self.worker = build_worker(jobs, self.generator, self.verifier, self.grader, self.registry)

    async def start(self) -> None:
        """Load both models, the small one first, so that a broken one is told in seconds. Raises `ModelLoadError`."""
        await self.grader.start()
        await self.verifier.start()
        await self.generator.start()
        if self.worker is not None:
            await self.worker.start()

    async def close(self) -> None:
        """Give back the items of jobs, release both models, end the grading processes."""
        if self.worker is not None:
            await self.worker.stop()
        await asyncio.gather(self.generator.close(), self.verifier.close(), self.grader.close(), self.jobs.close())

    def service(self, runtime: RuntimeSettings) -> Service:
        """Everything behind one port."""
        optional = [self.jobs.ready, *([] if self.cache is None else [self.cache.ready])]
        if self.worker is not None:
            optional.append(self.worker.ready)
        checks = [self.generator.ready, self.verifier.ready, self.grader.ready]
        lifecycle = Lifecycle(checks=checks, optional=optional)
        app = build_app(
            title="e2h",
            routers=[
                solve_router(self.fair, self.grader),
                chat_router(self.fair),
                grade_router(self.grader),
                scoring_router(self.verifier),
                rerank_router(self.verifier),
                generate_router(self.bounded),
                jobs_router(self.jobs),
            ],
            bodies=[*BODIES, *VERIFIER_BODIES, ChatRequest, GradeRequest, GenerateRequest, JobRequest],
            lifecycle=lifecycle,
            registry=self.registry,
            settings=runtime,
        )
        return Service(app, lifecycle, start=self.start, stop=self.close)

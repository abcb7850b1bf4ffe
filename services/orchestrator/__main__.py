"""The orchestrator as a process of its own: `python -m services.orchestrator`. Its composition root."""

import asyncio
import sys

from prometheus_client import CollectorRegistry

from services.core.contracts import ChatRequest, GradeRequest, JobRequest
from services.orchestrator.admission import Admission, FairSolver
from services.orchestrator.api.chat import chat_router
from services.orchestrator.api.grade import grade_router
from services.orchestrator.api.jobs import jobs_router
from services.orchestrator.api.solve import BODIES, solve_router
from services.orchestrator.evaluation.settings import EvaluationSettings
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings
from services.orchestrator.jobs.service import Jobs
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.metrics import AdmissionMetrics, SolveMetrics
from services.orchestrator.settings import AdmissionSettings, OrchestratorSettings
from services.orchestrator.solver import Solver
from services.orchestrator.upstreams import Upstreams
from services.runtime.app import Lifecycle, build_app
from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings, load_settings
from services.runtime.verifier_routes import VERIFIER_BODIES, rerank_router, scoring_router


def build(settings: OrchestratorSettings, runtime: RuntimeSettings) -> Service:
    """The orchestrator's app around clients of the other two services."""
    registry = CollectorRegistry()
    upstreams = Upstreams(settings, registry)
    generator, verifier = upstreams.generator, upstreams.verifier
    grader = GradingPool(load_settings(GradingSettings), GradingMetrics(registry))
    solver = Solver(generator, verifier, grader, SolveMetrics(registry))
    admission = Admission(load_settings(AdmissionSettings), AdmissionMetrics(registry))
    fair = FairSolver(solver, admission)
    jobs = Jobs(load_settings(JobSettings), generator, verifier, load_settings(EvaluationSettings).data_dir)
    lifecycle = Lifecycle(
        checks=[grader.ready, generator.ready, verifier.ready],
        optional=[*generator.checks(), *verifier.checks(), jobs.ready],
    )
    app = build_app(
        title="e2h",
        # The verifier's routes, passed through, so that one public port is enough.
        routers=[
            solve_router(fair, grader),
            chat_router(fair),
            grade_router(grader),
            scoring_router(verifier),
            rerank_router(verifier),
            jobs_router(jobs),
        ],
        bodies=[*BODIES, *VERIFIER_BODIES, ChatRequest, GradeRequest, JobRequest],
        lifecycle=lifecycle,
        registry=registry,
        settings=runtime,
    )

    async def start() -> None:
        """Nothing to load but the grading processes; upstreams may come later, and `/ready` tells."""
        await grader.start()

    async def stop() -> None:
        await asyncio.gather(upstreams.close(), grader.close(), jobs.close())

    return Service(app, lifecycle, start=start, stop=stop)


def main() -> int:
    """Serve until stopped; the exit code is `run`'s."""
    settings, runtime = load_settings(OrchestratorSettings), load_settings(RuntimeSettings)
    configure_logging(runtime)
    return run(build(settings, runtime), settings.port, runtime)


if __name__ == "__main__":
    sys.exit(main())

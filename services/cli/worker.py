"""`e2h worker`: run the items of evaluation jobs."""

from services.cli.faults import told_faults
from services.orchestrator.jobs.process import build
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.settings import OrchestratorSettings
from services.runtime.logs import configure_logging
from services.runtime.serving import run
from services.runtime.settings import RuntimeSettings, load_settings


def run_worker(port: int | None) -> int:
    """Work until stopped; the exit code is `run`'s. A worker takes no requests, so its port closes at once."""
    settings, runtime = load_settings(JobSettings), load_settings(RuntimeSettings, drain_grace_s=0.0)
    configure_logging(runtime)
    with told_faults():
        service = build(settings, load_settings(OrchestratorSettings), runtime)
    return run(service, settings.worker_port if port is None else port, runtime)

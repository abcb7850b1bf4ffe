"""`e2h up`: the all-in-one server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.allinone import AllInOne
from services.cli.faults import told_faults
from services.cli.settings import generator_settings, verifier_settings
from services.orchestrator.jobs.embedded import embedded_redis
from services.orchestrator.jobs.settings import JobSettings
from services.runtime.logs import configure_logging
from services.runtime.serving import run
from services.runtime.settings import RuntimeSettings, load_settings


def serve(
    port: int, host: str | None, generator: str | None, verifier: str | None, jobs: Path | None, *, insecure: bool
) -> int:
    """Serve until stopped; the exit code is `run`'s. `jobs` is where they are kept if they shall be run here."""
    given = {**({} if host is None else {"host": host}), **({"insecure": True} if insecure else {})}
    runtime = load_settings(RuntimeSettings, **given)
    configure_logging(runtime)
    with told_faults(), _kept(jobs) as settings:
        everything = AllInOne(generator_settings(generator), verifier_settings(verifier), settings)
        return run(everything.service(runtime), port, runtime)


@contextmanager
def _kept(directory: Path | None) -> Iterator[JobSettings | None]:
    """The settings of jobs, with a redis and a place of results where none are configured."""
    if directory is None:
        yield None
        return
    configured = load_settings(JobSettings)
    if configured.redis_url is not None:
        yield configured
        return
    results = configured.results_url or str(directory.resolve() / "results")
    with embedded_redis(directory / "redis") as url:
        yield configured.model_copy(update={"redis_url": url, "results_url": results})

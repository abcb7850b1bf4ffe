"""`e2h up`: the all-in-one server."""

from services.allinone import AllInOne
from services.cli.settings import generator_settings, verifier_settings
from services.runtime.logs import configure_logging
from services.runtime.serving import run
from services.runtime.settings import RuntimeSettings, load_settings


def serve(port: int, host: str | None, generator: str | None, verifier: str | None, *, insecure: bool) -> int:
    """Serve until stopped; the exit code is `run`'s."""
    given = {**({} if host is None else {"host": host}), **({"insecure": True} if insecure else {})}
    runtime = load_settings(RuntimeSettings, **given)
    configure_logging(runtime)
    everything = AllInOne(generator_settings(generator), verifier_settings(verifier))
    return run(everything.service(runtime), port, runtime)

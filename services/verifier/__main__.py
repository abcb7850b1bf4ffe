"""The verifier as a process of its own: `python -m services.verifier`."""

import sys

from prometheus_client import CollectorRegistry

from services.runtime.app import Lifecycle, build_app
from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings, load_settings
from services.runtime.verifier_routes import VERIFIER_BODIES
from services.verifier.api import verifier_router
from services.verifier.cache import build_score_cache
from services.verifier.metrics import VerifierMetrics
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings


def build(settings: VerifierSettings, runtime: RuntimeSettings) -> Service:
    """The verifier's app around a real reward model."""
    registry = CollectorRegistry()
    cache = build_score_cache(settings, registry)
    verifier = LocalVerifier(settings, VerifierMetrics(registry), cache)
    lifecycle = Lifecycle(checks=[verifier.ready], optional=[] if cache is None else [cache.ready])
    app = build_app(
        title="e2h verifier",
        routers=[verifier_router(verifier)],
        bodies=VERIFIER_BODIES,
        lifecycle=lifecycle,
        registry=registry,
        settings=runtime,
    )
    return Service(app, lifecycle, start=verifier.start, stop=verifier.close)


def main() -> int:
    """Serve until stopped; the exit code is `run`'s."""
    settings, runtime = load_settings(VerifierSettings), load_settings(RuntimeSettings)
    configure_logging(runtime)
    return run(build(settings, runtime), settings.port, runtime)


if __name__ == "__main__":
    sys.exit(main())

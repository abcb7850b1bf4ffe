"""The generator as a process of its own: `python -m services.generator`."""

import sys

from prometheus_client import CollectorRegistry

from services.core.contracts import GenerateRequest
from services.generator.admission import BoundedGenerator
from services.generator.api import generator_router
from services.generator.engine import VllmGenerator
from services.generator.metrics import GeneratorMetrics
from services.generator.settings import GeneratorSettings
from services.runtime.app import Lifecycle, build_app
from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings, load_settings


def build(settings: GeneratorSettings, runtime: RuntimeSettings) -> Service:
    """The generator's app around a real engine."""
    registry = CollectorRegistry()
    generator = VllmGenerator(settings, GeneratorMetrics(registry))
    bounded = BoundedGenerator(generator, settings.max_queue_tokens, registry)
    lifecycle = Lifecycle(checks=[generator.ready])
    app = build_app(
        title="e2h generator",
        routers=[generator_router(bounded)],
        bodies=[GenerateRequest],
        lifecycle=lifecycle,
        registry=registry,
        settings=runtime,
    )
    return Service(app, lifecycle, start=generator.start, stop=generator.close)


def main() -> int:
    """Serve until stopped; the exit code is `run`'s."""
    settings, runtime = load_settings(GeneratorSettings), load_settings(RuntimeSettings)
    configure_logging(runtime)
    return run(build(settings, runtime), settings.port, runtime)


if __name__ == "__main__":
    sys.exit(main())

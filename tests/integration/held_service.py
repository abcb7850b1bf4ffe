"""A real process for tests of how one ends: `serving.run` around a generator whose second sample never comes.

    python -m tests.integration.held_service PORT

`POST /v1/generate` with n = 1 answers at once; with n = 2 it does not end by itself.
"""

import asyncio
import sys

from prometheus_client import CollectorRegistry

from services.core.contracts import GenerateRequest
from services.generator.api import generate_router
from services.runtime.app import Lifecycle, build_app
from services.runtime.logs import configure_logging
from services.runtime.serving import Service, run
from services.runtime.settings import RuntimeSettings, load_settings
from tests.fakes import FakeGenerator


async def _nothing() -> None:
    """There is no model to load or release."""


def main() -> int:
    runtime = load_settings(RuntimeSettings)
    configure_logging(runtime)
    lifecycle = Lifecycle()
    app = build_app(
        title="held",
        routers=[generate_router(FakeGenerator(["x"], holds={1: asyncio.Event()}))],
        bodies=[GenerateRequest],
        lifecycle=lifecycle,
        registry=CollectorRegistry(),
        settings=runtime,
    )
    return run(Service(app, lifecycle, start=_nothing, stop=_nothing), int(sys.argv[1]), runtime)


if __name__ == "__main__":
    sys.exit(main())

"""Running an app until it is told to stop: listen at once, load behind `/ready`, drain, exit with a meaningful code."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from services.core.errors import ModelLoadError
from services.runtime.app import Lifecycle
from services.runtime.settings import RuntimeSettings

_log = structlog.get_logger("e2h.serving")


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process before the models are released."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Service:
    """An app with its lifecycle and what must be started and stopped around it."""

    def __init__(
        self,
        app: FastAPI,
        lifecycle: Lifecycle,
        start: Callable[[], Coroutine[Any, Any, None]],
        stop: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.start = start
        self.stop = stop


def run(service: Service, port: int, settings: RuntimeSettings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 after a drain, 3 when a model cannot be loaded."""
    with asyncio.Runner(
        loop_factory=uvicorn.Config(service.app, loop="auto", log_config=None).get_loop_factory()
    ) as runner:
        return runner.run(serve(service, port, settings))


async def serve(service: Service, port: int, settings: RuntimeSettings) -> int:
    """`run` inside a running event loop."""
    server = _Server(
        uvicorn.Config(
            service.app,
            host=settings.host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
        )
    )
    _stop_on_signal(server, service.lifecycle)
    listening = asyncio.create_task(_listen(server))
    loading = asyncio.create_task(service.start())
    try:
        code = await _load(loading, listening, service.lifecycle)
        if service.lifecycle.phase == "serving":
            _log.info("serving", host=settings.host, port=port)
        if code != 0:
            server.should_exit = True
        bound = await listening
    finally:
        server.should_exit = True
        await asyncio.wait({listening})
        await service.stop()
    return code if bound else code or 1


async def _listen(server: uvicorn.Server) -> bool:
    """Serve to the end. False when the address could not be bound (uvicorn then calls `sys.exit`)."""
    try:
        await server.serve()
    except SystemExit:
        return False
    return True


async def _load(loading: asyncio.Task[None], listening: asyncio.Task[bool], lifecycle: Lifecycle) -> int:
    """Wait for the models, or for the server to end before them."""
    await asyncio.wait({loading, listening}, return_when=asyncio.FIRST_COMPLETED)
    stopped_early = not loading.done()
    # A thread that loads cannot be stopped, and what it loads must be released: wait for it.
    await asyncio.wait({loading})
    try:
        loading.result()
    except ModelLoadError as error:
        print(f"error: {error.message}\n  mend: {error.hint}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return error.exit_code
    if lifecycle.phase == "loading" and not stopped_early:
        lifecycle.phase = "serving"
    return 0


def _stop_on_signal(server: uvicorn.Server, lifecycle: Lifecycle) -> None:
    def stop() -> None:
        # Told twice, the person who waits has waited enough.
        server.force_exit = lifecycle.phase == "draining"
        lifecycle.phase = "draining"
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)

"""Running an app until it is told to stop: listen at once, load behind `/ready`, drain, exit with a meaningful code.

The end, after SIGTERM: `/ready` says 503 at once; for the grace the port takes requests as before, each answer asking
the caller to let go of the connection; then nothing new is accepted, and what runs has the drain time-out to finish.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from services.core.errors import ModelLoadError
from services.runtime.app import Lifecycle
from services.runtime.auth import KeyRing, reason_not_to_serve
from services.runtime.protocol import bounded_protocol
from services.runtime.settings import RuntimeSettings

EXIT_USAGE = 2
# After the drain time-out, for what was cut to say so.
_LAST_WORDS_S = 1.0
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
    """Serve until SIGTERM or SIGINT. Returns the exit code.

    0 after a drain, 1 when the port is taken, 2 when these settings may not be served, 3 when a model cannot be loaded.
    """
    refusal = reason_not_to_serve(settings, service.app.state.keys)
    if refusal is not None:
        _tell(*refusal)
        return EXIT_USAGE
    with asyncio.Runner(loop_factory=server_config(service.app, port, settings).get_loop_factory()) as runner:
        return runner.run(serve(service, port, settings))


def server_config(app: ASGIApp, port: int, settings: RuntimeSettings) -> uvicorn.Config:
    """How uvicorn serves an app of ours."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        http=bounded_protocol(settings.body_timeout_s),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        # A pipelined request is started in the context of the one before it, and would inherit its budget and tenant.
        reset_contextvars=True,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )


async def serve(service: Service, port: int, settings: RuntimeSettings) -> int:
    """`run` inside a running event loop, without its check."""
    server = _Server(server_config(service.app, port, settings))
    _stop_on_signal(server, service.lifecycle, settings.drain_grace_s)
    _reload_on_signal(service.app.state.keys)
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
        await _let_end(server)
        await service.stop()
    return code if bound else code or 1


async def _let_end(server: uvicorn.Server) -> None:
    """Wait for the requests that the drain time-out has cut: each still tells its caller why."""
    tasks = set(server.server_state.tasks)
    if tasks and not server.force_exit:
        await asyncio.wait(tasks, timeout=_LAST_WORDS_S)


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
        _tell(error.message, error.hint)
        return error.exit_code
    if lifecycle.phase == "loading" and not stopped_early:
        lifecycle.phase = "serving"
    return 0


def _stop_on_signal(server: uvicorn.Server, lifecycle: Lifecycle, grace_s: float) -> None:
    loop = asyncio.get_running_loop()

    def stop(grace_s: float) -> None:
        # Told twice, the person who waits has waited enough.
        server.force_exit = lifecycle.phase == "draining"
        at_once = server.force_exit or lifecycle.phase == "loading" or grace_s == 0
        lifecycle.phase = "draining"
        if at_once:
            server.should_exit = True
        else:
            loop.call_later(grace_s, setattr, server, "should_exit", True)

    loop.add_signal_handler(signal.SIGTERM, stop, grace_s)
    loop.add_signal_handler(signal.SIGINT, stop, 0.0)


def _reload_on_signal(ring: KeyRing | None) -> None:
    if ring is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, ring.reload)


def _tell(message: str, hint: str) -> None:
    print(f"error: {message}\n  mend: {hint}", file=sys.stderr)  # noqa: T201 - for the person who started it

"""The demo's server in a process of its own, for the length of a block: what is loaded when no `--url` is given."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

import httpx2

from services.core.errors import ModelLoadError, UpstreamUnavailable

# vLLM takes half a minute on an idle core; a shared one may be slow.
_READY_WITHIN_S = 300.0
_STOP_WITHIN_S = 60.0
_MODEL_FAULT = 3

_WAIT_SHARE = 0.4
WAIT_VARIABLE = "E2H_VERIFIER_MAX_QUEUE_WAIT_S"


def demo_environment(slo_ms: float, environ: Mapping[str, str]) -> dict[str, str]:
    """What the demo's server is told beside what the environment says: to refuse whom it cannot serve in time.

    It answers within twice the wait that it allows: a little less than half of the objective leaves time for the rest.
    """
    told = {"E2H_LOG_LEVEL": "WARNING", WAIT_VARIABLE: f"{_WAIT_SHARE * slo_ms / 1000:g}"}
    return {name: environ.get(name, value) for name, value in told.items()}


@contextmanager
def demo_server(kind: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The URL of `python -m services.verifier`, or for `solve` of `e2h up`, ready; stopped after the block.

    Raises `ModelLoadError` or `UpstreamUnavailable` when it does not come up.
    """
    port = _free_port()
    command = {
        "verifier": ["-m", "services.verifier"],
        "solve": ["-m", "services.cli.main", "up", "--port", str(port)],
    }[kind]
    with tempfile.TemporaryFile() as log:
        process = _start(command, {**environment, "E2H_VERIFIER_PORT": str(port)}, log)
        try:
            url = f"http://127.0.0.1:{port}"
            _await_ready(process, url, log)
            yield url
        finally:
            _stop(process)


def _start(command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # Its own session, so that Ctrl-C is for this process, which stops it.
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, *command],
        env={**os.environ, **environment},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _await_ready(process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log.seek(0)
            told = log.read().decode(errors="replace").strip()
            if process.returncode == _MODEL_FAULT:
                raise ModelLoadError("the demo's server has no model that it can serve", hint=told or "e2h doctor")
            raise UpstreamUnavailable(f"the demo's server ended with code {process.returncode}: {told[-500:]}")
        try:
            if httpx2.get(f"{url}/ready", timeout=5.0).status_code == httpx2.codes.OK:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.2)
    raise UpstreamUnavailable("the demo's server was not ready in time")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

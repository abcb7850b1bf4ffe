"""Real service processes for tests: started on free loopback ports, awaited by `/ready`, ended by SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

ROOT = Path(__file__).parents[2]
# vLLM needs half a minute on an idle core; a shared one may be slow.
_READY_WITHIN_S = 240
_STOPPED_WITHIN_S = 60


class Process:
    """A running service process of ours."""

    def __init__(self, arguments: Sequence[str], port: int, environment: dict[str, str], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        with log.open("wb") as sink:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, "E2H_LOG_LEVEL": "INFO", **environment},
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What the process has printed so far."""
        return self._log.read_text(errors="replace")

    def wait_ready(self, path: str = "/ready") -> None:
        """Returns when the service takes work; raises with its output when it ends or takes too long."""
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise RuntimeError(f"ended with {self.popen.returncode}:\n{self.output}")
            try:
                if httpx2.get(self.url + path, timeout=5).status_code == 200:
                    return
            except httpx2.HTTPError:
                pass
            time.sleep(0.25)
        raise TimeoutError(self.output)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    arguments: Sequence[str], log: Path, port: int | None = None, ready: str = "/ready", **environment: str
) -> Iterator[Process]:
    """A process, ready, for the length of the block."""
    process = Process(arguments, port or free_port(), environment, log)
    try:
        process.wait_ready(ready)
        yield process
    finally:
        process.stop()


@contextmanager
def service(name: str, log: Path, **environment: str) -> Iterator[Process]:
    """`python -m services.NAME` on a free port."""
    port = free_port()
    with running(["-m", f"services.{name}"], log, port, **{f"E2H_{name.upper()}_PORT": str(port)}, **environment) as it:
        yield it

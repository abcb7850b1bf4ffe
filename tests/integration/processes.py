"""Real service processes for tests: started on free loopback ports, awaited by `/ready`, ended by SIGTERM."""

import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[2]
# vLLM needs half a minute on an idle core; a shared one may be slow.
_READY_WITHIN_S = 240
_STOPPED_WITHIN_S = 60
# Below those that Linux, as it comes, gives to outgoing connections: one may come before a service has opened its port.
_PORTS = range(20_000, 32_000)
_PARTS = 8


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


def _ports() -> Iterator[int]:
    """In turn, from a part for each of the first pytest-xdist workers, beginning anywhere in it: runs may overlap."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
    size = len(_PORTS) // _PARTS
    begin = worker * size
    turn = begin + secrets.randbelow(size)
    return itertools.cycle([*_PORTS[turn : begin + size], *_PORTS[begin:turn]])


_OFFERED = _ports()


def free_port() -> int:
    """A loopback port that nothing listens on, and that this process is not given again before its turn comes round."""
    for port in itertools.islice(_OFFERED, len(_PORTS) // _PARTS):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


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


@contextmanager
def engine(kind: str, log: Path, port: int | None = None, speed: dict[str, Any] | None = None) -> Iterator[Process]:
    """A generator or verifier of known speed (`paced_generator.py`, `paced_verifier.py`)."""
    port = port or free_port()
    arguments = ["-m", f"tests.integration.paced_{kind}", str(port), json.dumps(speed or {})]
    with running(arguments, log, port, E2H_DRAIN_GRACE_S="0", E2H_LOG_LEVEL="WARNING") as process:
        yield process


def e2h(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """`e2h ARGUMENTS` to its end."""
    command = [sys.executable, "-m", "services.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=240, check=False)


def metric(process: Process, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels, as the process tells it now."""
    lines = httpx2.get(f"{process.url}/metrics", timeout=60).text.splitlines()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    named = (line for line in lines if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(line.rsplit(" ", 1)[1]) for line in named if all(label in line for label in wanted))


def until(condition: Callable[[], bool], within_s: float = 60.0) -> float:
    """Seconds until `condition()` is true; raises when it does not become so."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            raise TimeoutError
        time.sleep(0.02)
    return time.monotonic() - began

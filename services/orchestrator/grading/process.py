"""One worker process as its pool sees it: started, given tasks, asked for the next result, killed."""

import asyncio
import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import services

_ROOT = str(Path(services.__file__).parents[1])
# No keys, no tokens: a process that reads hostile text inherits nothing worth reading.
_INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_LINE_BYTES = 2**20
_STARTUP_S = 60.0
_GRACE_S = 2  # after which a worker that nobody killed ends itself


class WorkerDied(Exception):
    """The process ended by itself: out of memory, or broken."""


class WorkerProcess:
    """A spawned (never forked) Python that runs `grading.worker`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, memory_mb: int, timeout_s: float) -> "WorkerProcess":
        """A worker that has loaded its libraries and limited itself: `memory_mb` beyond what they take, and somewhat
        more than `timeout_s` of processor time a task. Raises `WorkerDied` or `TimeoutError` when it cannot."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.orchestrator.grading.worker",
            str(memory_mb),
            str(math.ceil(timeout_s) + _GRACE_S),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LINE_BYTES,
            cwd="/",
            env={**environment, "PYTHONPATH": _ROOT, "OMP_NUM_THREADS": "1"},
        )
        worker = cls(process)
        try:
            await worker.receive(_STARTUP_S)
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, tasks: list[list[str]]) -> None:
        """Raises `WorkerDied` when nobody reads."""
        stdin = self._process.stdin
        try:
            if stdin is None:
                raise WorkerDied
            # ASCII escapes carry lone surrogates, which UTF-8 does not.
            stdin.write(json.dumps(tasks).encode("ascii") + b"\n")
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise WorkerDied from None

    async def receive(self, timeout_s: float) -> Any:
        """The next result. Raises `TimeoutError`, or `WorkerDied` when there will be none."""
        stdout = self._process.stdout
        if stdout is None:
            raise WorkerDied
        async with asyncio.timeout(timeout_s):
            line = await stdout.readline()
        if not line.endswith(b"\n"):
            raise WorkerDied
        return json.loads(line)

    async def kill(self) -> None:
        """End it, whatever it does, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

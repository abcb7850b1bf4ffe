"""Ends vLLM's processes when the one that started them is killed: they would live on and keep the device's memory.

The generator's engine starts `python -m services.generator.watcher PID` beside itself; a signal that nobody can catch
(SIGKILL, the kernel's out-of-memory killer) leaves nobody else to do it. Knows processes, and nothing of the service.
"""

import contextlib
import os
import signal
import subprocess
import sys
from time import sleep as _pause

import psutil

# How vLLM names its engine and its workers.
_NAMED = "VLLM::"
_LOOKED_EVERY_S = 1.0


def start_watcher() -> subprocess.Popen[bytes]:
    """Watch this process. Kill the watcher once the engine has stopped; otherwise it ends after this process."""
    # A session of its own: ^C at a terminal is for the generator, which stops its engine in order.
    return subprocess.Popen([sys.executable, "-m", __name__, str(os.getpid())], start_new_session=True)  # noqa: S603


def watch(parent: psutil.Process) -> list[psutil.Process]:
    """Returns once `parent` has ended, with the vLLM processes that it had started."""
    started: set[psutil.Process] = set()
    while _lives(parent):
        with contextlib.suppress(psutil.Error):
            started.update(child for child in parent.children(recursive=True) if _is_engine(child))
        _pause(_LOOKED_EVERY_S)
    return [each for each in started if _lives(each)]


def _lives(process: psutil.Process) -> bool:
    """False for another process of the same number, and for one that ended and was not waited for."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_engine(process: psutil.Process) -> bool:
    try:
        return "".join(process.cmdline()[:1]).startswith(_NAMED)
    except psutil.Error:
        return False


def main() -> int:
    """Watch the process whose number is the argument; then kill what it left behind."""
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)  # who ends all of a service's processes ends the parent too
    try:
        left = watch(psutil.Process(int(sys.argv[1])))
    except psutil.NoSuchProcess:
        return 0
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())

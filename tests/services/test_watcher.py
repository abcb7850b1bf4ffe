"""What is left of a process that was killed is found; tests/integration/test_replica_processes.py sees vLLM end."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from services.generator import watcher

# Starts one process with vLLM's kind of name and one with another, says which, and waits.
PARENT = """
import subprocess, sys
pids = [subprocess.Popen([name, "60"], executable="/bin/sleep").pid for name in ("VLLM::EngineCore", "grading")]
print(*pids, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], psutil.Process, psutil.Process]]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        engine, other = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        try:
            yield parent, engine, other
        finally:
            for each in (engine, other):
                if each.is_running():
                    each.kill()
            parent.kill()


def test_the_engine_that_a_killed_process_left_is_found_and_nothing_else(
    family: tuple[subprocess.Popen[str], psutil.Process, psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, engine, other = family
    looked, found = threading.Event(), list[psutil.Process]()

    def pause(seconds: float) -> None:
        looked.set()
        time.sleep(0.01)

    monkeypatch.setattr(watcher, "_pause", pause)
    watching = threading.Thread(target=lambda: found.extend(watcher.watch(psutil.Process(parent.pid))))
    watching.start()
    assert looked.wait(30)
    assert watching.is_alive()
    parent.kill()  # a zombie until it is waited for, as under a parent that does not
    watching.join(30)
    assert found == [engine]
    assert other.is_running()


def test_a_watcher_ends_with_what_it_watches() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        watching = subprocess.Popen([sys.executable, "-m", "services.generator.watcher", str(parent.pid)])
        parent.communicate(b"\n")
    assert watching.wait(60) == 0


def test_nobody_to_watch_is_no_fault() -> None:
    nobody = subprocess.Popen([sys.executable, "-c", ""])
    nobody.wait()
    command = [sys.executable, "-m", "services.generator.watcher", str(nobody.pid)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0

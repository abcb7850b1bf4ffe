"""Forks workers of jobs, which are ready in no time because everything is imported: tests kill many of them.

A command a line on standard input, an answer a line on standard output. `start PORT LOG KIND NAME=VALUE...`, with a
kind of whole, light or deadly, answers the process id; `wait PID` its exit code; `poll PID` the same, or `alive`. With
the variable CLOCK_AHEAD_S a worker's wall clock is so many seconds ahead of ours.
"""

import os
import sys

# What a worker imports when it ends its first job is here before it is forked.
import services.orchestrator.evaluation.report  # noqa: F401
from services.cli.worker import run_worker
from tests.integration.light_worker import run_test_worker
from tests.integration.other_clock import set_clock_ahead


def _start(port: int, log: str, kind: str, environment: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(sink, descriptor)
        os.environ.update({name: value for name, _, value in (pair.partition("=") for pair in environment)})
        set_clock_ahead(float(os.environ.get("CLOCK_AHEAD_S", 0)))
        code = run_worker(port) if kind == "whole" else run_test_worker(port, deadly=kind == "deadly")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(pid: int, options: int) -> str:
    found, status = os.waitpid(pid, options)
    return str(os.waitstatus_to_exitcode(status)) if found else "alive"


def main() -> None:
    while line := sys.stdin.readline():
        match line.split():
            case ["start", port, log, kind, *environment]:
                answer = str(_start(int(port), log, kind, environment))
            case ["wait", pid]:
                answer = _ended(int(pid), 0)
            case ["poll", pid]:
                answer = _ended(int(pid), os.WNOHANG)
            case _:
                raise ValueError(line)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

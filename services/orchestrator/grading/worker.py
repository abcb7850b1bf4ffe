"""The process that compares: `python -m services.orchestrator.grading.worker`. Lines of JSON in, lines of JSON out.

In: a list of tasks, `["key", answer]` or `["grade", gold, pred, mode]`. Out: one line a task, in order, as each is
done: the key, or `[equal, method]`. It says `"ready"` first. It ends with its input, and when the limits that it sets
itself are exceeded: memory, processor time, no files written. Nothing of the input is executed or kept.
"""

import json
import os
import resource
import sys
from typing import Any, BinaryIO

from services.core.equivalence import Method, Mode, Verdict, canonical_key, quick_verdict
from services.core.equivalence.symbolic import load, symbolically_equal


def main(memory_mb: int, cpu_seconds: int) -> int:
    """Serve standard input until it ends. `cpu_seconds` of one task end the process, should nobody be left to."""
    # Whatever a library prints must not come between the answers.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    load()
    _warm()
    _limit(memory_mb)
    out.write(b'"ready"\n')
    try:
        for line in sys.stdin.buffer:
            _serve(json.loads(line), out, cpu_seconds)
    except (BrokenPipeError, MemoryError):
        return 1
    return 0


def _serve(tasks: list[list[str]], out: BinaryIO, cpu_seconds: int) -> None:
    for task in tasks:
        _limit_processor(cpu_seconds)
        out.write(json.dumps(_answer(task)).encode() + b"\n")


def _answer(task: list[str]) -> Any:
    if task[0] == "key":
        return canonical_key(task[1])
    verdict = grade(task[1], task[2], Mode(task[3]))
    return [verdict.equal, verdict.method.value]


def grade(gold: str, pred: str, mode: Mode) -> Verdict:
    """The quick verdict, or computer algebra's where there is none. Raises `MemoryError` only."""
    verdict = quick_verdict(gold, pred, mode)
    if verdict is not None:
        return verdict
    try:
        return Verdict(symbolically_equal(gold, pred), Method.SYMBOLIC)
    except MemoryError:
        raise
    except Exception:  # a foreign library on hostile text: whatever it raises, the answers are not shown to be equal
        return Verdict(False, Method.SYMBOLIC)


def _warm() -> None:
    """Have imported and built, before the clock runs, what a first comparison would."""
    grade(r"\sum_{k=1}^{n} k", r"\int_0^1 x\,dx", Mode.REFERENCE)
    grade(r"\sqrt{2}", r"\sin x", Mode.REFERENCE)


def _limit(memory_mb: int) -> None:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - one number, no path handling
        used = int(statm.read().split()[0]) * resource.getpagesize()
    room = used + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _limit_processor(seconds: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + seconds, hard))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))

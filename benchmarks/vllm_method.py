"""vLLM pooling as two methods: all tokens of a solution, or one request a step at its last token with prefix caching.

Each has an engine in a process of its own (`benchmarks/vllm_engine.py`), ended by `close`. The seconds are those
that the engine's process measured around its call: without start-up, without the pipe.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.methods import Scored, Values
from benchmarks.models import ROOT
from benchmarks.vllm_engine import Options, arguments
from benchmarks.workload import Level, Problem

_END_S = 20.0


class EngineFailed(Exception):
    """vLLM could not be started, or ended. The message has the last line that it wrote."""


class Engine:
    """The process, which starts while its caller goes on. Raises `EngineFailed` from every call once it has ended.

    Once it has started it is stopped while nothing is asked of it: one that waits for requests still wakes hundreds of
    times a second, which took some percent of the core on which the others were measured.
    """

    def __init__(self, options: Options) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            arguments(options),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # so that it can be ended with whatever it started
        )

    def wait(self) -> "Engine":
        """Until it has started."""
        self._answer()
        self._signal(signal.SIGSTOP)
        return self

    def ask(self, prompts: list[Sequence[int]]) -> dict[str, Any]:
        """The engine's line for these prompts: values, computed, seconds, busy."""
        answer: dict[str, Any] = self._exchange(prompts)
        return answer

    def forget(self) -> None:
        """Empty the prefix cache."""
        self._exchange(None)

    def close(self) -> None:
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _exchange(self, message: Any) -> Any:
        if self._process.stdin is None:
            raise EngineFailed("vllm has no standard input")
        self._signal(signal.SIGCONT)
        try:
            print(json.dumps(message), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise EngineFailed(self._last_words()) from None
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def _signal(self, which: signal.Signals) -> None:
        """To the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, which)

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise EngineFailed(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        # It goes into a report, which names no folder of this machine.
        return re.sub(r"(?<!\w)/\S+", "PATH", lines[-1]) if lines else "vllm ended without a word"


class VllmTokens:
    """One request a sequence, a probability at every token; those at the read-out rows are kept."""

    name = "vLLM token pooling"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def score(self, problem: Problem) -> Scored:
        values: Values = []
        answers = []
        for level in problem.levels:
            answer = self._engine.ask([e.ids for e in level])
            answers.append(answer)
            values.append([[row[at] for at in e.rows] for e, row in zip(level, answer["values"], strict=True)])
        return _scored(values, answers)


class VllmLastToken:
    """One request a step, which ends at the step's read-out row. The prefix cache is empty before each problem."""

    def __init__(self, engine: Engine, which: str = "") -> None:
        """`which` stands after the name: how this engine differs from the tuned one."""
        self._engine = engine
        self.name = f"vLLM last token + prefix cache{which}"

    def score(self, problem: Problem) -> Scored:
        self._engine.forget()
        answers = [self._engine.ask([e.ids[: at + 1] for e in level for at in e.rows]) for level in problem.levels]
        values = [_by_sequence(level, answer["values"]) for level, answer in zip(problem.levels, answers, strict=True)]
        return _scored(values, answers)


def _by_sequence(level: Level, found: list[list[float]]) -> list[list[float]]:
    places = iter(found)
    return [[next(places)[0] for _ in e.rows] for e in level]


def _scored(values: Values, answers: Sequence[dict[str, Any]]) -> Scored:
    return Scored(
        values,
        sum(answer["computed"] for answer in answers),
        sum(answer["seconds"] for answer in answers),
        sum(answer["busy"] for answer in answers),
    )

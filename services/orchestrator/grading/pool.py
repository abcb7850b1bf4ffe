"""Comparing answers away from the event loop: a pool of processes that can be killed, with a memory of results.

Tasks of a batch go to idle workers in chunks; each result has its own deadline, counted from the one before. A worker
that misses it is killed and replaced, its task is "not equal, timed out", the rest of its chunk goes to another.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from services.core.equivalence import Method, Mode, Verdict, quick_verdict
from services.core.equivalence.typography import MAX_CHARS
from services.core.errors import ModelLoadError, NotReady, Overloaded
from services.orchestrator.grading.metrics import GradingMetrics
from services.orchestrator.grading.process import WorkerDied, WorkerProcess
from services.orchestrator.grading.settings import GradingSettings

_log = structlog.get_logger("e2h.grading")

_CHUNK = 32  # tasks a worker gets at once; what one time-out can delay
_REMEMBERED_CHARS = 512
_RESPAWN_PAUSE_S = 1.0
Task = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Lost:
    """No result: the worker ran out of time, or died."""

    timed_out: bool


class GradingPool:
    """A `Grader`. `start` it before the first call and `close` it after the last."""

    def __init__(self, settings: GradingSettings, metrics: GradingMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._idle: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        self._workers: set[WorkerProcess] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        self._remembered: OrderedDict[Task, Any] = OrderedDict()
        self._waiting = 0
        self._starting = False
        self._up = asyncio.Event()
        self._closed = False

    async def start(self) -> None:
        """Start the workers and wait until they have loaded; who asks before that waits too. Raises `ModelLoadError`
        when they cannot."""
        self._starting = True
        try:
            async with asyncio.TaskGroup() as starting:
                for _ in range(self._settings.workers):
                    starting.create_task(self._spawn())
        except ExceptionGroup:
            await self.close()
            raise ModelLoadError("the grading processes do not start", "pip install 'e2h[orchestrator]'") from None
        self._up.set()

    async def close(self) -> None:
        """Kill the workers."""
        self._closed = True
        self._up.set()
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self._workers))
        self._workers.clear()

    async def ready(self) -> str | None:
        """None when it can take work, else the reason why not."""
        running = self._up.is_set() and not self._closed
        return None if running else "the grading processes are not running"

    @property
    def pids(self) -> set[int]:
        """The process ids of the workers that live."""
        return {worker.pid for worker in self._workers}

    async def keys(self, answers: Sequence[str]) -> list[str]:
        """The canonical key of each answer. One that cannot be had in time is the answer's own text."""
        found = await self._results([("key", answer) for answer in answers])
        return [
            f"~{answer.strip()}" if isinstance(key, _Lost) else key for answer, key in zip(answers, found, strict=True)
        ]

    async def grade(self, pairs: Sequence[tuple[str, str]], mode: Mode) -> list[Verdict]:
        """The verdict on each pair (gold, pred), in order. Raises `Overloaded`."""
        # Equality is symmetric: one order of a pair is enough to remember and to compute.
        found = await self._results([("grade", *sorted(pair), mode.value) for pair in pairs])
        verdicts = [_verdict(result) for result in found]
        for verdict in verdicts:
            self._metrics.verdict(verdict)
        return verdicts

    async def _results(self, tasks: list[Task]) -> list[Any]:
        """A result for each task, from memory, from its text alone, or from a worker."""
        known: dict[Task, Any] = {}
        for task in tasks:
            if task in self._remembered:
                self._remembered.move_to_end(task)
                known[task] = self._remembered[task]
            elif any(len(text) > MAX_CHARS for text in task):
                known[task] = _of_long(task)
        self._metrics.remembered.inc(len(known))
        unknown = [task for task in dict.fromkeys(tasks) if task not in known]
        if unknown:
            known.update(zip(unknown, await self._compute(unknown), strict=True))
        return [known[task] for task in tasks]

    async def _compute(self, tasks: list[Task]) -> list[Any]:
        if self._starting:
            await self._up.wait()
        if not self._starting or self._closed:
            raise NotReady("the grading processes are not running")
        if self._waiting + len(tasks) > self._settings.max_waiting:
            raise Overloaded("too many comparisons wait")
        self._wait_for(len(tasks))
        try:
            chunks = [tasks[i : i + _CHUNK] for i in range(0, len(tasks), _CHUNK)]
            found = [result for chunk in await asyncio.gather(*map(self._chunk, chunks)) for result in chunk]
        finally:
            self._wait_for(-len(tasks))
        for task, result in zip(tasks, found, strict=True):
            self._remember(task, result)
        return found

    def _wait_for(self, change: int) -> None:
        self._waiting += change
        self._metrics.waiting.set(self._waiting)

    def _remember(self, task: Task, result: Any) -> None:
        if not self._settings.cached or sum(map(len, task)) > _REMEMBERED_CHARS:
            return
        if isinstance(result, _Lost) and not result.timed_out:
            return
        self._remembered[task] = result
        if len(self._remembered) > self._settings.cached:
            self._remembered.popitem(last=False)

    async def _chunk(self, tasks: list[Task]) -> list[Any]:
        results: list[Any] = []
        while len(results) < len(tasks):
            worker = await self._idle.get()
            await self._work(worker, tasks[len(results) :], results)
        return results

    async def _work(self, worker: WorkerProcess, tasks: list[Task], results: list[Any]) -> None:
        """Append the worker's results to `results`, up to the first that it does not give, which is `_Lost`."""
        cause = "cancelled"
        try:
            await worker.send([list(task) for task in tasks])
            for _ in tasks:
                results.append(await worker.receive(self._settings.timeout_s))
            cause = ""
        except TimeoutError:
            cause = "timeout"
            self._metrics.timeouts.inc()
            results.append(_Lost(timed_out=True))
        except WorkerDied:
            cause = "died"
            results.append(_Lost(timed_out=False))
        finally:
            if cause:
                self._replace(worker, cause)
            else:
                self._idle.put_nowait(worker)

    def _replace(self, worker: WorkerProcess, cause: str) -> None:
        self._metrics.restarted(cause)
        task = asyncio.create_task(self._killed_and_replaced(worker))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _killed_and_replaced(self, worker: WorkerProcess) -> None:
        await worker.kill()
        self._workers.discard(worker)
        while not self._closed:
            try:
                await self._spawn()
                return
            except (WorkerDied, TimeoutError, OSError) as error:
                _log.error("a grading process does not start", error=type(error).__name__)
                await asyncio.sleep(_RESPAWN_PAUSE_S)

    async def _spawn(self) -> None:
        worker = await WorkerProcess.start(self._settings.memory_mb, self._settings.timeout_s)
        self._workers.add(worker)
        self._idle.put_nowait(worker)


def _verdict(result: Any) -> Verdict:
    if isinstance(result, Verdict):
        return result
    if isinstance(result, _Lost):
        return Verdict(False, Method.SYMBOLIC, timed_out=result.timed_out)
    equal, method = result
    return Verdict(bool(equal), Method(method))


def _of_long(task: Task) -> Any:
    """What is too long for the grammar is compared as text, here and at once."""
    if task[0] == "key":
        return f"~{task[1].strip()}"
    verdict = quick_verdict(task[1], task[2], Mode(task[3]))
    return verdict if verdict is not None else _Lost(timed_out=False)

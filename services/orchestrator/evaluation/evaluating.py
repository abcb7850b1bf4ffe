"""A whole evaluation in this process: every item that is not there yet, some at a time, each kept as it ends.

What a kill loses are the items that ran; running it again goes on where it stopped. Knows ports and the store.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import stamina

from services.core.contracts import EvaluationProblem, Manifest
from services.core.errors import E2HError, InternalError
from services.orchestrator.evaluation.items import Item, items_of
from services.orchestrator.evaluation.running import ItemRunner
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.evaluation.store import ResultsStore

_TRIES = 8  # with waits that double up to half a minute: what a service needs to start again
_LONGEST_WAIT_S = 30.0
Told = Callable[[Item], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The samples of one data set, wanted in a store.

    With `concurrency` 1 every item runs alone, so that the engine's batches, and with them the samples, do not depend
    on when a run was interrupted (see docs/decisions/0015-evaluation.md).
    """

    runner: ItemRunner
    store: ResultsStore
    problems: Sequence[EvaluationProblem]
    concurrency: int

    async def run(self, manifest: Manifest, already: Told, done: Told) -> None:
        """Make what is missing, then `samples.parquet`. `already` and `done` are told each item.

        Raises `InvalidRequest` when the store holds something else, and what the ports raise when it lasts.
        """
        await asyncio.to_thread(self.store.begin, manifest, self.problems)
        items = list(items_of(manifest.plan, len(self.problems)))
        kept = {item.name for item in items} if self.store.finished else await asyncio.to_thread(self.store.parts)
        for item in items:
            if item.name in kept:
                already(item)
        await self._make(iter([item for item in items if item.name not in kept]), done)
        if not self.store.finished:
            await asyncio.to_thread(self.store.finish, [item.name for item in items])

    async def _make(self, items: Iterator[Item], done: Told) -> None:
        async def work() -> None:
            for item in items:
                samples = await self._samples(item)
                await asyncio.to_thread(self.store.write_part, item, samples)
                done(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _samples(self, item: Item) -> list[ScoredSample]:
        tries = stamina.retry_context(on=_may_pass, attempts=_TRIES, timeout=None, wait_max=_LONGEST_WAIT_S)
        async for attempt in tries:
            with attempt:
                return await self.runner.run(item, self.problems[item.ordinal])
        raise InternalError("a retry ended without a result")


def _may_pass(error: Exception) -> bool:
    return isinstance(error, E2HError) and error.retryable

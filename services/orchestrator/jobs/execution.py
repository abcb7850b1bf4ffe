"""What running one item comes to: its part written, or why not and what follows for the item. Knows no redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from services.core.contracts import JobError
from services.core.errors import DeadlineExceeded, E2HError, InvalidRequest, NotFound
from services.core.ports import Generator, Grader, Verifier
from services.orchestrator.evaluation.running import ItemRunner
from services.orchestrator.jobs.results import JobFiles, Shelf, no_room
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.store import FINISH, How
from services.runtime import context

_log = structlog.get_logger("e2h.jobs")

_MODELS_CHANGED = "model_mismatch"

Committed = Callable[[], Awaitable[Mapping[int, str]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a hold of an item ends; `wait_s` is the pause that an engine asks for."""

    how: How
    error: JobError | None = None
    wait_s: float = 0.0


DONE = Outcome("done")
GIVEN_BACK = Outcome("given_back")


class Rooms:
    """How many items run at once. One that has ended a worker before runs alone, so that it ends no others' again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def entered(self, *, alone: bool) -> AsyncIterator[None]:
        """A room, or all of them, for the length of the block."""
        if not alone:
            async with self._free:
                yield
            return
        taken = 0
        async with self._alone:
            try:
                for _ in range(self._count):
                    await self._free.acquire()
                    taken += 1
                yield
            finally:
                for _ in range(taken):
                    self._free.release()


class Executor:
    """Runs items against engines, as work that yields to whoever waits for an answer."""

    def __init__(
        self, generator: Generator, verifier: Verifier, grader: Grader, shelf: Shelf, settings: JobSettings
    ) -> None:
        self._generator = generator
        self._verifier = verifier
        self._grader = grader
        self._shelf = shelf
        self._settings = settings

    async def run(self, job: str, item: str, token: str, committed: Committed) -> Outcome:
        """Run the item within its time. Raises nothing but `CancelledError`."""
        context.set_priority("batch")
        context.set_budget(self._settings.item_timeout_s)
        try:
            async with asyncio.timeout(self._settings.item_timeout_s):
                files = await self._shelf.files(job)
                if item == FINISH:
                    await files.finish(await committed())
                else:
                    await self._sample(files, int(item), token)
            return DONE
        except TimeoutError:
            return _counted(DeadlineExceeded("the item's time ran out"))
        except E2HError as error:
            return _judged(error)
        except OSError as error:
            return _of_storage(error, job)
        except Exception:
            _log.exception("item", job=job, item=item)
            return Outcome(
                "failed", JobError(code="internal", message="a bug of ours; the log has the job and the item")
            )

    async def _sample(self, files: JobFiles, place: int, token: str) -> None:
        await self._same_models(files)
        item, problem = files.item(place)
        runner = ItemRunner(self._generator, self._verifier, self._grader, files.manifest.plan)
        await files.write(item, await runner.run(item, problem), token)

    async def _same_models(self, files: JobFiles) -> None:
        """Samples of two models in one table would be a result of neither. Raises `InvalidRequest`."""
        wanted = files.manifest
        verifier = None if wanted.verifier is None else wanted.verifier.id
        served = ((await self._generator.info()).id, (await self._verifier.info()).id if verifier else None)
        if served != (wanted.generator, verifier):
            raise InvalidRequest("other models are served than the job was submitted for", code=_MODELS_CHANGED)


def _judged(error: E2HError) -> Outcome:
    told = JobError(code=error.code, message=error.message)
    if isinstance(error, NotFound) or error.code == _MODELS_CHANGED:  # no item of the job can be done
        return Outcome("abort", told)
    if isinstance(error, InvalidRequest):  # the same again would be refused again
        return Outcome("given_up", told)
    if error.retryable and not isinstance(error, DeadlineExceeded):
        return Outcome("put_off", told, error.retry_after_s)
    return _counted(error)


def _counted(error: E2HError) -> Outcome:
    return Outcome("failed", JobError(code=error.code, message=error.message), error.retry_after_s)


def _of_storage(error: OSError, job: str) -> Outcome:
    _log.error("results", job=job, fault=type(error).__name__, errno=error.errno)
    if no_room(error):
        return Outcome("abort", JobError(code="storage_full", message="the place of results is full"))
    return Outcome("failed", JobError(code="storage", message="the place of results cannot be written or read"), 1.0)

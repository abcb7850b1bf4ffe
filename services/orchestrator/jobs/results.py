"""The results place of each job: where its problems are read and its parts go. Blocking calls, each in a thread."""

import asyncio
import contextlib
import errno
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import fsspec

from services.core.contracts import EvaluationProblem, Manifest
from services.core.errors import InvalidRequest, NotFound
from services.orchestrator.evaluation.items import Item, item_at
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.evaluation.store import ResultsStore

_REMEMBERED = 4  # data sets held at once; a worker has few jobs at a time
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def place_of(results_url: str, job: str) -> str:
    """The results URL of one job."""
    return f"{results_url.rstrip('/')}/{job}"


def no_room(error: OSError) -> bool:
    """Whether the place is full, which another try does not mend."""
    return error.errno in _FULL


def discard(url: str) -> None:
    """Remove the place of a job that was not kept."""
    fs, root = fsspec.core.url_to_fs(url)
    if fs.exists(root):
        fs.rm(root, recursive=True)


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The files of one job, and what of them every item needs."""

    store: ResultsStore
    manifest: Manifest
    problems: Sequence[EvaluationProblem]

    def item(self, place: int) -> tuple[Item, EvaluationProblem]:
        """The item at this place of the job, and its problem."""
        item = item_at(self.manifest.plan, place)
        return item, self.problems[item.ordinal]

    async def write(self, item: Item, samples: Sequence[ScoredSample], token: str) -> None:
        """Keep a part under a name that no other holder of the item uses. It counts only once it is committed.

        A cancellation waits for the end of the writing: nothing comes after its worker has let go of the item.
        """
        name = f"{item.name}-{token}"
        writing = asyncio.create_task(asyncio.to_thread(self.store.write_part, item, samples, name))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            writing.exception()  # nobody asks any more
            raise

    async def finish(self, committed: Mapping[int, str]) -> None:
        """Make the table of the committed parts, and the report; of what is there already, nothing."""
        names = [f"{item_at(self.manifest.plan, place).name}-{token}" for place, token in committed.items()]
        await asyncio.to_thread(self._finish, names)

    def _finish(self, names: Sequence[str]) -> None:
        # Written whole by whoever did so and then ended: its parts may be gone.
        if not self.store.finished:
            self.store.finish(names)
        if self.store.report() is None:
            _report(self.store)


def _report(store: ResultsStore) -> None:
    """Here, not where it is asked for: counting takes seconds, which a process that answers requests does not have."""
    from services.orchestrator.evaluation.report import build_report, write_report  # scipy and matplotlib

    # Without gold answers, or a problem that has all its samples, there is nothing to report.
    with contextlib.suppress(NotFound, InvalidRequest):
        write_report(build_report(store), store.url)


class Shelf:
    """The files of the jobs that this process works on. Reading is done once for all who wait."""

    def __init__(self, results_url: str) -> None:
        self._url = results_url
        self._held: OrderedDict[str, JobFiles] = OrderedDict()
        self._reading = asyncio.Lock()

    async def files(self, job: str) -> JobFiles:
        """Raises `NotFound` when the place holds no evaluation, `OSError` when it cannot be read."""
        async with self._reading:
            if job not in self._held:
                self._held[job] = await asyncio.to_thread(self._read, job)
                if len(self._held) > _REMEMBERED:
                    self._held.popitem(last=False)
            self._held.move_to_end(job)
            return self._held[job]

    def _read(self, job: str) -> JobFiles:
        store = ResultsStore(place_of(self._url, job))
        return JobFiles(store, store.manifest(), store.problems())

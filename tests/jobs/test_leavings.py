"""What a cancelled job leaves at the results place: kept while somebody works on it, then removed, late parts too."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from services.core.errors import UpstreamUnavailable
from services.orchestrator.evaluation.items import Item
from services.orchestrator.jobs import leavings as module
from services.orchestrator.jobs.leavings import Leavings
from services.orchestrator.jobs.results import JobFiles, discard
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.store import LEAVINGS, JobStore
from services.runtime.redis import connect
from tests.jobs.test_job_store import EXPIRED_S, JOB, begun, finished


@pytest.fixture
def leavings(redis: Redis, settings: JobSettings) -> Leavings:
    return Leavings(redis, settings)


def written(settings: JobSettings, name: str) -> Path:
    """The place of the job, with a part of this name as a worker writes it."""
    place = Path(settings.results_url or "") / JOB.id
    (place / "parts").mkdir(parents=True, exist_ok=True)
    (place / "parts" / f"{name}.parquet").write_bytes(b"a part")
    return place


async def test_parts_stay_until_the_last_item_is_let_go(
    store: JobStore, leavings: Leavings, settings: JobSettings, redis: Redis
) -> None:
    place = written(settings, "0-a")
    await begun(store)
    for item in ("0", "1"):
        assert await store.claim(JOB.id, item, item)
    await store.cancel(JOB.id)
    for item in ("0", "1"):
        await leavings.remove_all()
        assert place.exists()
        assert await store.settle(JOB.id, item, item, "given_back") == "ended"
    await leavings.remove_all()
    assert not place.exists()
    assert await redis.exists(LEAVINGS) == 0


async def test_a_part_that_comes_after_the_lease_ran_out_is_removed_too(
    store: JobStore, leavings: Leavings, settings: JobSettings
) -> None:
    place = written(settings, "1-a")
    await begun(store)
    await store.claim(JOB.id, "0", "zombie")
    await store.cancel(JOB.id)
    await asyncio.sleep(EXPIRED_S)
    await leavings.remove_all()
    assert not place.exists()
    # As at an object store, which has no directories that could be gone.
    written(settings, "0-zombie")
    await leavings.remove_all()
    assert place.exists()
    assert await store.settle(JOB.id, "0", "zombie", "done") == "ended"
    await leavings.remove_all()
    assert not place.exists()


async def test_a_part_that_comes_while_another_removes_is_not_forgotten(
    store: JobStore, leavings: Leavings, settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = written(settings, "1-a")
    await begun(store)
    await store.claim(JOB.id, "0", "zombie")
    await store.cancel(JOB.id)
    await asyncio.sleep(EXPIRED_S)
    loop, remove = asyncio.get_running_loop(), discard

    def slowly(url: str) -> None:
        remove(url)
        written(settings, "0-zombie")
        late = store.settle(JOB.id, "0", "zombie", "done")
        assert asyncio.run_coroutine_threadsafe(late, loop).result(30) == "ended"

    monkeypatch.setattr(module, "discard", slowly)
    await leavings.remove_all()
    assert place.exists()
    monkeypatch.undo()
    await leavings.remove_all()
    assert not place.exists()


@pytest.mark.parametrize("completed", [True, False], ids=["completed", "running"])
async def test_no_other_job_loses_its_files(
    store: JobStore, leavings: Leavings, settings: JobSettings, redis: Redis, completed: bool
) -> None:
    place = written(settings, "0-t")
    await begun(store)
    if completed:
        await finished(store, "0", "1", "2", "3")
        await store.offer(JOB.id)
        await finished(store, "finish")
        await store.cancel(JOB.id)
    await redis.zadd(LEAVINGS, {JOB.id: 0})
    await leavings.remove_all()
    assert place.exists()
    assert await redis.exists(LEAVINGS) == 0


async def test_what_cannot_be_removed_is_left_for_another_time(
    store: JobStore, leavings: Leavings, settings: JobSettings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str) -> None:
        raise PermissionError(url)

    place = written(settings, "0-t")
    await begun(store)
    await store.cancel(JOB.id)
    monkeypatch.setattr(module, "discard", refuse)
    await leavings.remove_all()
    monkeypatch.undo()
    await leavings.remove_all()
    assert place.exists(), "who removes is left alone for a while"
    await redis.zadd(LEAVINGS, {JOB.id: 0})
    await leavings.remove_all()
    assert not place.exists()


async def test_a_redis_that_is_away_is_told_as_such(settings: JobSettings) -> None:
    away = connect(SecretStr("redis://127.0.0.1:1/0"), timeout_s=1.0)
    with pytest.raises(UpstreamUnavailable):
        await Leavings(away, settings).remove_all()


async def test_a_worker_that_is_told_to_stop_lets_the_writing_end() -> None:
    begins, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def write_part(self, *_: Any) -> None:
            begins.set()
            may_end.wait(30)
            ended.set()

    files = JobFiles(Slow(), None, [])  # type: ignore[arg-type]
    writing = asyncio.create_task(files.write(Item(0, 0, 2), [], "token"))
    await asyncio.to_thread(begins.wait, 30)
    writing.cancel()
    await asyncio.sleep(0.05)
    assert not writing.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert ended.is_set()

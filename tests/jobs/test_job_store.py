"""The state of jobs in a real redis: who holds what, what a late hand may not do, what one submit keeps."""

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from services.core.contracts import EvaluationPlan, JobError
from services.core.errors import NotFound, NotReady, StorageFull
from services.core.voting import Strategy
from services.orchestrator.jobs.fields import NewJob
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.store import FINISH, LEAVINGS, PREFIX, QUEUE_NAMESPACE, JobStore

JOB = NewJob("job-1", "acme", EvaluationPlan(n=4, chunk=2), (Strategy.WEIGHTED,), 4)
FAULT = JobError(code="upstream_contract", message="it was so")
EXPIRED_S = 0.4


async def begun(store: JobStore, job: NewJob = JOB) -> list[str]:
    """A submitted job, with its items offered."""
    assert await store.submit(job, None, "digest") is None
    return list((await store.offer(job.id)).items)


async def finished(store: JobStore, *items: str) -> None:
    for item in items:
        assert await store.claim(JOB.id, item, "t")
        assert await store.settle(JOB.id, item, "t", "done") == "done"


async def test_a_job_goes_from_submit_to_its_end(store: JobStore) -> None:
    assert await begun(store) == ["0", "1", "2", "3"]
    assert (await store.get("acme", JOB.id)).status == "queued"
    await finished(store, "0", "1", "2", "3")
    assert await store.committed(JOB.id) == dict.fromkeys(range(4), "t")
    assert (await store.offer(JOB.id)).items == (FINISH,)
    assert (await store.get("acme", JOB.id)).status == "finishing"
    await finished(store, FINISH)
    job = await store.get("acme", JOB.id)
    assert (job.status, job.items_done, job.failed, job.eta_s) == ("completed", 4, 0, None)
    assert await store.running() == []
    told = [event.progress for event in await store.events(JOB.id, "0-0")]
    assert [(p.status, p.items_done) for p in told] == [
        ("queued", 0),
        ("running", 0),
        *(("running", i) for i in (1, 2, 3, 4)),
        ("completed", 4),
    ]


async def test_an_item_is_held_by_one_and_offered_once(store: JobStore) -> None:
    await begun(store)
    assert await store.claim(JOB.id, "0", "a") == 1
    assert await store.claim(JOB.id, "0", "b") is None
    assert (await store.offer(JOB.id)).items == ()


async def test_a_late_hand_changes_nothing(store: JobStore) -> None:
    await begun(store)
    await store.claim(JOB.id, "0", "zombie")
    await asyncio.sleep(EXPIRED_S)
    offered = await store.offer(JOB.id)
    assert (offered.expired, offered.items[0]) == (1, "0")
    assert await store.settle(JOB.id, "0", "zombie", "done") == "fenced"
    assert await store.claim(JOB.id, "0", "heir") == 2
    assert await store.settle(JOB.id, "0", "zombie", "done") == "fenced"
    assert await store.renew(JOB.id, "0", "zombie") == "fenced"
    assert await store.settle(JOB.id, "0", "heir", "done") == "done"
    assert await store.settle(JOB.id, "0", "heir", "done") == "fenced"
    assert await store.committed(JOB.id) == {0: "heir"}
    assert (await store.get("acme", JOB.id)).items_done == 1


async def test_a_lease_that_is_renewed_does_not_run_out(store: JobStore) -> None:
    await begun(store)
    await store.claim(JOB.id, "0", "a")
    for _ in range(6):
        await asyncio.sleep(0.1)
        assert await store.renew(JOB.id, "0", "a") == "ok"
        assert (await store.offer(JOB.id)).expired == 0


async def test_an_item_that_ends_its_workers_is_given_up_after_so_many(store: JobStore) -> None:
    await begun(store, replace(JOB, items=1))
    for delivery in (1, 2, 3):
        assert await store.claim(JOB.id, "0", str(delivery)) == delivery
        await asyncio.sleep(EXPIRED_S)
        offered = await store.offer(JOB.id)
        assert offered.expired == 1
    assert offered.given_up == 1
    assert offered.items == (FINISH,)
    await finished(store, FINISH)
    job = await store.get("acme", JOB.id)
    assert (job.status, job.failed) == ("completed_with_errors", 1)
    assert [(e.code, e.item, e.problem) for e in job.errors] == [("worker_lost", 0, 0)]


@pytest.mark.parametrize(
    ("how", "became"),
    [
        pytest.param("put_off", ["retried"] * 9, id="a busy engine is no fault of the item"),
        pytest.param("given_back", ["waiting"] * 9, id="a worker that stops is no fault of the item"),
        pytest.param("failed", ["waiting", "waiting", "given_up"], id="a fault of the item counts"),
        pytest.param("given_up", ["given_up"], id="what cannot be mended is given up at once"),
    ],
)
async def test_what_becomes_of_an_item_that_is_not_done(store: JobStore, how: str, became: list[str]) -> None:
    await begun(store, replace(JOB, items=1))
    found = []
    for _ in became:
        assert await store.claim(JOB.id, "0", "t")
        found.append(await store.settle(JOB.id, "0", "t", how, FAULT))  # type: ignore[arg-type]
        await store.offer(JOB.id)
    assert found == became


async def test_what_is_put_off_waits_for_its_time(store: JobStore) -> None:
    await begun(store, replace(JOB, items=1))
    await store.claim(JOB.id, "0", "t")
    await store.settle(JOB.id, "0", "t", "put_off", FAULT, wait_s=0.5)
    assert (await store.offer(JOB.id)).items == ()
    await asyncio.sleep(0.6)
    assert (await store.offer(JOB.id)).items == ("0",)


async def test_an_offer_that_nobody_took_up_is_made_again_once_the_queue_is_empty(
    store: JobStore, redis: Redis
) -> None:
    await begun(store)
    await redis.rpush(f"{QUEUE_NAMESPACE}:items", "another message")
    await asyncio.sleep(EXPIRED_S)
    assert (await store.offer(JOB.id)).items == ()
    await redis.delete(f"{QUEUE_NAMESPACE}:items")
    assert (await store.offer(JOB.id)).items == ("0", "1", "2", "3")


async def test_the_queue_holds_a_window_of_each_job(redis: Redis, settings: JobSettings) -> None:
    store = JobStore(redis, settings.model_copy(update={"window": 3}))
    assert await begun(store) == ["0", "1", "2"]
    assert (await store.offer(JOB.id)).items == ()
    await finished(store, "1")
    assert (await store.offer(JOB.id)).items == ("3",)


async def test_a_cancelled_job_takes_no_more_results(store: JobStore) -> None:
    await begun(store)
    await store.claim(JOB.id, "0", "t")
    await store.cancel(JOB.id)
    assert await store.renew(JOB.id, "0", "t") == "ended"
    assert await store.settle(JOB.id, "0", "t", "done") == "ended"
    assert await store.claim(JOB.id, "1", "t") is None
    assert (await store.offer(JOB.id)).items == ()
    assert (await store.get("acme", JOB.id)).status == "cancelled"
    await store.cancel(JOB.id)
    assert len(await store.events(JOB.id, "0-0")) == 3


async def test_a_fault_of_the_job_ends_it(store: JobStore) -> None:
    await begun(store)
    await store.claim(JOB.id, "0", "t")
    assert await store.settle(JOB.id, "0", "t", "abort", FAULT) == "ended"
    job = await store.get("acme", JOB.id)
    assert (job.status, job.error) == ("failed", FAULT)


async def test_a_job_that_redis_forgot_is_lost_and_does_not_come_back(store: JobStore, redis: Redis) -> None:
    await begun(store)
    await store.claim(JOB.id, "0", "t")
    await redis.flushall()
    assert await store.renew(JOB.id, "0", "t") == "lost"
    assert await store.settle(JOB.id, "0", "t", "done") == "lost"
    assert await store.claim(JOB.id, "1", "t") is None
    assert (await store.offer(JOB.id)).items == ()
    assert await redis.keys("*") == []
    with pytest.raises(NotFound):
        await store.get("acme", JOB.id)


async def test_one_key_keeps_one_job_however_many_come_at_once(store: JobStore, redis: Redis) -> None:
    jobs = [replace(JOB, id=f"job-{i}") for i in range(20)]
    found = await asyncio.gather(*(store.submit(job, "key", "digest") for job in jobs))
    (winner,) = await store.running()
    assert found.count(None) == 1
    assert {earlier for earlier in found if earlier is not None} == {("digest", winner)}
    assert await store.known("acme", "key") == ("digest", winner)
    assert await store.known("other", "key") is None
    assert len(await redis.keys(f"{PREFIX}:job:*")) == 2  # the job and its events


async def test_a_full_redis_keeps_nothing_of_a_job(store: JobStore, redis: Redis) -> None:
    await begun(store)
    await store.claim(JOB.id, "0", "t")
    before = sorted(await redis.keys("*"))
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(StorageFull):
            await store.submit(replace(JOB, id="job-2"), "key", "digest")
        with pytest.raises(StorageFull):
            await store.offer(JOB.id)
        # What ends an item frees more than it takes.
        assert await store.settle(JOB.id, "0", "t", "done") == "done"
        await store.cancel(JOB.id)
    finally:
        await redis.config_set("maxmemory", 0)
    after = set(await redis.keys("*"))
    assert after <= set(before) | {f"{PREFIX}:job:{JOB.id}:done".encode(), LEAVINGS.encode()}


async def test_a_redis_that_evicts_is_refused(store: JobStore, redis: Redis) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(NotReady):
            await store.submit(JOB, None, "digest")
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    assert await store.trouble() is None


async def test_tenants_do_not_see_each_other(store: JobStore) -> None:
    await begun(store)
    with pytest.raises(NotFound) as other:
        await store.get("other", JOB.id)
    with pytest.raises(NotFound) as none:
        await store.get("acme", "job-2")
    assert other.value.message == none.value.message
    assert await store.newest("other") == []
    assert [job.id for job in await store.newest("acme")] == [JOB.id]


async def test_redis_holds_no_problem_and_forgets_ended_jobs(store: JobStore, redis: Redis) -> None:
    await begun(store)
    await store.cancel(JOB.id)
    for part in ("", ":events"):
        assert 0 < await redis.ttl(f"{PREFIX}:job:{JOB.id}{part}") <= 30 * 86_400
    assert await redis.keys(f"{PREFIX}:job:*:offered") == []


async def test_a_submit_that_was_not_confirmed_is_taken_back(store: JobStore, redis: Redis) -> None:
    await store.submit(JOB, "key", "digest")
    await store.forget(JOB, "key")
    assert await redis.keys("*") == []

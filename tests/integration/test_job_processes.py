"""Jobs through real processes: killed and stopped workers, poison, a redis that restarts, forgets or fills up."""

import json
import random
import signal
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.integration.job_stack import ENDED, HELD_AT_ONCE, JobStack, job_stack, problems, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

KILLS = 20
# Twenty kills may well hit one item thrice, which is no fault of the item.
PATIENT = {"E2H_JOBS_DELIVERIES": "20"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobStack]:
    with job_stack(tmp_path_factory.mktemp("jobs")) as running:
        yield running


def post(stack: JobStack, count: int = 2) -> httpx2.Response:
    body = {"dataset": {"items": problems(count)}, "n": 4, "chunk": 2}
    return httpx2.post(f"{stack.orchestrator.url}/v1/jobs", json=body, timeout=30)


def degraded(stack: JobStack) -> list[str]:
    response = httpx2.get(f"{stack.orchestrator.url}/ready", timeout=30)
    assert response.status_code == 200
    found: list[str] = response.json()["degraded"]
    return found


def test_one_worker_or_three_with_twenty_kills_make_the_same_table(stack: JobStack) -> None:
    items, before = problems(50), sum(stack.calls().values())
    stack.worker("whole")
    alone = stack.end_of(stack.submit(items))
    assert (alone["status"], alone["items_done"], alone["failed"]) == ("completed", 100, 0)
    assert stack.stop_workers() == [0]
    assert sum(stack.calls().values()) == before + 200
    assert len(stack.calls()) == 200

    dice = random.Random(20)
    for _ in range(4):
        stack.worker(**PATIENT)
    job = stack.submit(items)
    for _ in range(KILLS):
        wait_for(lambda: stack.held(job))
        time.sleep(dice.uniform(0.0, 0.2))
        dice.choice(wait_for(lambda: [w for w in stack.living if w.serving])).end(signal.SIGKILL)
        stack.worker(**PATIENT)
    at_the_last = stack.look(job)
    among_kills = stack.end_of(job)
    assert at_the_last["items_done"] < 100, "the kills came too late to tell anything"
    assert (among_kills["status"], among_kills["items_done"], among_kills["failed"]) == ("completed", 100, 0)
    assert stack.table(job) == stack.table(alone["id"])
    # Beyond one each: what the killed workers held.
    assert sum(stack.calls().values()) <= before + 2 * 200 + KILLS * HELD_AT_ONCE * 2


def test_an_item_that_ends_its_workers_is_given_up_and_takes_no_other_with_it(stack: JobStack) -> None:
    job = stack.submit(problems(9, bad="the poison"), n=2)
    deaths = 0
    while stack.look(job)["status"] not in ENDED:
        deaths += sum(not worker.living for worker in stack.workers)
        stack.workers = stack.living
        while len(stack.workers) < 2:
            stack.worker("deadly")
        time.sleep(0.1)
    ended = stack.look(job)
    assert (ended["status"], ended["items_done"], ended["failed"]) == ("completed_with_errors", 9, 1)
    assert [(e["code"], e["problem"]) for e in ended["errors"]] == [("worker_lost", 9)]
    assert deaths == 3
    lines = httpx2.get(f"{stack.orchestrator.url}/v1/jobs/{job}/results").text.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"p{i}" for i in range(9)]


def test_a_worker_that_was_only_asleep_may_not_write_any_more(stack: JobStack) -> None:
    job = stack.submit(problems(100))
    sleeper = stack.worker()
    wait_for(lambda: len(stack.held(job)) == HELD_AT_ONCE)
    sleeper.send(signal.SIGSTOP)
    taken = stack.held(job)
    assert taken
    stack.worker()
    done = wait_for(lambda: (done := stack.committed(job)).keys() >= taken.keys() and done)
    sleeper.send(signal.SIGCONT)
    wait_for(lambda: sleeper.metrics()["e2h_jobs_fenced_writes_total"] == len(taken))
    assert all(stack.committed(job)[item] == done[item] != taken[item] for item in taken)
    ended = stack.end_of(job)
    assert (ended["status"], ended["items_done"]) == ("completed", 200)


def test_with_the_default_lease_a_dead_workers_items_are_given_back_within_15_seconds(stack: JobStack) -> None:
    defaults = {"E2H_JOBS_LEASE_S": "12", "E2H_JOBS_SWEEP_S": "1", "dramatiq_restart_delay": "3000"}
    job = stack.submit(problems(100))
    heir = stack.worker(**defaults)
    wait_for(lambda: heir.serving)
    victim = stack.worker(**defaults)
    wait_for(lambda: victim.serving and victim.metrics()["e2h_jobs_items_held"] > 0)
    victim.send(signal.SIGSTOP)  # so that what it holds can be told from what the other holds
    time.sleep(1)
    first = stack.held(job)
    wait_for(lambda: len(first.items() & stack.held(job).items()) <= HELD_AT_ONCE)
    held = dict(first.items() & stack.held(job).items())
    victim.end(signal.SIGKILL)
    killed = time.monotonic()
    assert held
    wait_for(lambda: not held.items() & stack.held(job).items())
    assert time.monotonic() - killed < 15
    assert stack.end_of(job)["items_done"] == 200


@pytest.mark.parametrize(
    "stop_s", [pytest.param("20", id="what runs ends first"), pytest.param("0", id="what runs is given back")]
)
def test_a_worker_that_is_told_to_stop_leaves_no_lease_behind(stack: JobStack, stop_s: str) -> None:
    before = stack.calls()
    job = stack.submit(problems(30))
    worker = stack.worker(E2H_JOBS_STOP_S=stop_s)
    wait_for(lambda: stack.held(job))
    assert worker.end(signal.SIGTERM) == 0
    assert stack.held(job) == {}
    assert "Traceback" not in worker.output
    stack.worker()
    ended = stack.end_of(job)
    assert (ended["status"], ended["items_done"]) == ("completed", 60)
    again = sum(stack.calls().values()) - sum(before.values()) - 120
    assert again == 0 if stop_s == "20" else again <= 2 * HELD_AT_ONCE


def test_a_cancelled_job_stops_sampling(stack: JobStack) -> None:
    job = stack.submit(problems(2000))
    worker = stack.worker()
    wait_for(lambda: stack.look(job)["items_done"] > 3)
    url = f"{stack.orchestrator.url}/v1/jobs/{job}"
    assert httpx2.delete(url, timeout=30).json()["status"] == "cancelled"
    wait_for(lambda: worker.metrics()["e2h_jobs_items_held"] == 0)
    calls = stack.calls()
    time.sleep(0.5)
    assert stack.calls() == calls
    wait_for(lambda: not (stack.directory / "results" / job).exists())
    assert httpx2.get(f"{url}/results", timeout=30).status_code == 409


def test_a_redis_that_forgets_everything_costs_its_jobs_and_no_worker(stack: JobStack) -> None:
    worker = stack.worker()
    job = stack.submit(problems(2000))
    wait_for(lambda: len(stack.held(job)) == HELD_AT_ONCE)
    with stack.client() as client:
        client.flushall()
    assert httpx2.get(f"{stack.orchestrator.url}/v1/jobs/{job}", timeout=30).status_code == 404
    again = stack.end_of(stack.submit(problems(3)))
    assert (again["status"], again["items_done"]) == ("completed", 6)
    assert worker.living
    assert len([line for line in worker.output.splitlines() if "job lost" in line]) == 1
    assert "Traceback" not in worker.output


def test_a_redis_that_dies_and_comes_back_loses_no_item(stack: JobStack) -> None:
    worker = stack.worker()
    job = stack.submit(problems(60))
    wait_for(lambda: stack.look(job)["items_done"] > 3)
    stack.redis.kill()
    refused = post(stack)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert "redis:down" in degraded(stack)
    solved = httpx2.post(f"{stack.orchestrator.url}/v1/solve", json={"problem": "What is 1 + 1?", "n": 2}, timeout=60)
    assert solved.status_code == 200
    stack.redis.start()
    ended = stack.end_of(job)
    assert (ended["status"], ended["items_done"], ended["failed"]) == ("completed", 120, 0)
    assert worker.living
    assert "redis:down" not in degraded(stack)
    assert "Traceback" not in worker.output


def test_a_full_redis_takes_no_job_and_what_runs_goes_on_once_there_is_room(stack: JobStack) -> None:
    stack.worker()
    job = stack.submit(problems(60))
    wait_for(lambda: stack.look(job)["items_done"] > 3)
    with stack.client() as client:
        kept = set(client.keys("e2h:jobs:job:*"))
        client.config_set("maxmemory", 1)
        try:
            refused = post(stack)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_full")
            assert {key for key in client.keys("e2h:jobs:job:*") if key not in kept} == set()
            assert [p.name for p in (stack.directory / "results").iterdir() if job == p.name] == [job]
            time.sleep(1)
        finally:
            client.config_set("maxmemory", 0)
    ended = stack.end_of(job)
    assert (ended["status"], ended["items_done"]) == ("completed", 120)


def test_a_redis_that_evicts_is_no_place_for_jobs(stack: JobStack) -> None:
    with stack.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert post(stack).json()["error"]["code"] == "not_ready"
            worker = stack.worker()
            wait_for(lambda: not worker.living)
            assert worker.code == 3
            assert "noeviction" in worker.output
        finally:
            client.config_set("maxmemory-policy", "noeviction")

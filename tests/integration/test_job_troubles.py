"""Jobs, and what stands beside them: a redis that is slow, hosts whose clocks differ, workers that start all at once.

`docs/faults.md` names the rows.
"""

import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from itertools import pairwise

import httpx2
import pytest

from tests.integration.counting_doors import CountingDoors
from tests.integration.job_stack import JobStack, job_stack, problems, wait_for
from tests.integration.processes import Process, free_port, metric, running

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

PAUSE_S = 5.0
# As by default: who cannot renew a lease for as long as the pause keeps it, on a busy machine too.
LEASE_S = 12
WORKERS = 10
SWEEP_S = 0.2
TRIES = 4  # after the first one, as a worker starts
HOUR_S = 3600


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobStack]:
    with job_stack(
        tmp_path_factory.mktemp("troubles"),
        also_redis=["E2H_REDIS_URL"],
        E2H_RATE_LIMIT="100000/minute",
        E2H_JOBS_LEASE_S=str(LEASE_S),
        E2H_JOBS_REDIS_TIMEOUT_S="1",
        E2H_JOBS_SWEEP_S=str(SWEEP_S),
    ) as running_stack:
        yield running_stack


def pause(stack: JobStack, seconds: float = PAUSE_S) -> float:
    """Have redis answer nobody for so long; when it does again, on our monotonic clock."""
    with stack.client() as client:
        ends = time.monotonic() + seconds
        client.client_pause(round(seconds * 1000))
    return ends


def calls_of(stack: JobStack, before: dict[str, int]) -> dict[str, int]:
    """How often each sample was asked for since then."""
    return {name: count - before.get(name, 0) for name, count in stack.calls().items() if count > before.get(name, 0)}


# --- 13: redis is slow -----------------------------------------------------------------------------------------------


def solve(orchestrator: Process, key: str, **headers: str) -> httpx2.Response:
    body = {"problem": "What is 1 + 1?", "n": 2}
    headers = {"idempotency-key": key, **headers}
    return httpx2.post(f"{orchestrator.url}/v1/solve", json=body, headers=headers, timeout=60)


def seconds_of_solves(stack: JobStack, name: str, until: float) -> list[float]:
    """Seconds of solves, one after another until this moment. Each has its own key and counts against a rate."""
    found: list[float] = []
    while time.monotonic() < until:
        began = time.monotonic()
        assert solve(stack.orchestrator, f"{name}-{len(found)}").status_code == 200
        found.append(time.monotonic() - began)
    return found


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def test_13_solves_go_on_while_redis_is_slow_and_jobs_say_so(stack: JobStack) -> None:
    job = stack.submit(problems(2))
    url = f"{stack.orchestrator.url}/v1/jobs"
    seconds_of_solves(stack, "warm", time.monotonic() + 0.5)
    normal = seconds_of_solves(stack, "before", time.monotonic() + PAUSE_S / 2)
    faults = ("e2h_rate_limit_redis_faults_total", "e2h_idempotency_redis_faults_total")
    assert [metric(stack.orchestrator, name) for name in faults] == [0, 0]
    with ThreadPoolExecutor(2) as pool:
        ends = pause(stack)
        body = {"dataset": {"items": problems(1)}, "n": 2}
        submitting = pool.submit(httpx2.post, url, json=body, timeout=60)
        looking = pool.submit(httpx2.get, f"{url}/{job}", timeout=60)
        paused = seconds_of_solves(stack, "paused", ends)
    for refused in (submitting.result(), looking.result()):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unavailable")
    # Those who asked at the very beginning, and nobody after them; a try a second would be as many as seconds.
    assert all(1 <= metric(stack.orchestrator, name) <= 3 for name in faults)
    assert statistics.median(paused) <= 1.5 * statistics.median(normal)
    assert p95(paused) - p95(normal) <= PAUSE_S / 20
    ready = f"{stack.orchestrator.url}/ready"
    wait_for(lambda: httpx2.get(ready, timeout=60).json()["degraded"] == [])
    assert [found["id"] for found in httpx2.get(url, timeout=60).json()["data"]] == [job], "a refused job is no job"
    assert [place.name for place in (stack.directory / "results").iterdir()] == [job]


def test_13_workers_wait_for_a_slow_redis_and_lose_nothing(stack: JobStack) -> None:
    before = stack.calls()
    worker = stack.worker()
    job = stack.submit(problems(60))
    wait_for(lambda: stack.look(job)["items_done"] > 3)
    done = len(stack.committed(job))
    time.sleep(max(0.0, pause(stack) - time.monotonic()))
    ended = stack.end_of(job)
    assert done < 120, "the pause came too late to tell anything"
    assert (ended["status"], ended["items_done"], ended["failed"]) == ("completed", 120, 0)
    assert set(calls_of(stack, before).values()) == {1}
    assert worker.living
    assert worker.metrics()["e2h_jobs_lease_expiries_total"] == 0
    told = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    assert [line["state"] for line in told if line["event"] == "redis"] == ["redis:down", "up"]
    assert "Traceback" not in worker.output


# --- 21: the clocks of hosts differ ----------------------------------------------------------------------------------


def clock_of(url: str) -> float:
    """What time it is there."""
    return parsedate_to_datetime(httpx2.get(f"{url}/health", timeout=30).headers["date"]).timestamp()


def test_21_hosts_an_hour_apart_run_each_item_once_and_make_the_same_table(stack: JobStack) -> None:
    items = problems(20)
    stack.worker()
    alone = stack.end_of(stack.submit(items))
    stack.close()
    before, port = stack.calls(), free_port()
    arguments = ["-m", "tests.integration.other_clock", str(-HOUR_S), "services.orchestrator.__main__"]
    environment = {**stack.environment, "E2H_ORCHESTRATOR_PORT": str(port)}
    with running(arguments, stack.directory / "behind.log", port, **environment) as behind:
        workers = [stack.worker(CLOCK_AHEAD_S=str(ahead)) for ahead in (HOUR_S, -HOUR_S, 0)]
        wait_for(lambda: all(worker.serving for worker in workers))
        clocks = [round((clock_of(url) - time.time()) / HOUR_S) for url in (behind.url, *(w.url for w in workers))]
        assert clocks == [-1, 1, -1, 0]
        job = stack.submit(items, at=behind)
        ended = stack.end_of(job)
        seen = httpx2.get(f"{behind.url}/v1/jobs/{job}", timeout=30).json()
        in_time = solve(behind, "in-time", **{"x-request-timeout-ms": "30000"})
        too_late = solve(behind, "too-late", **{"x-request-timeout-ms": "1"})
    assert (ended["status"], ended["items_done"], ended["failed"]) == ("completed", 40, 0)
    assert stack.table(job) == stack.table(alone["id"])
    assert {name: count for name, count in calls_of(stack, before).items() if count != 1 and "1 + 1" not in name} == {}
    told = [worker.metrics() for worker in workers]
    assert [numbers["e2h_jobs_lease_expiries_total"] for numbers in told] == [0, 0, 0]
    assert [numbers["e2h_jobs_fenced_writes_total"] for numbers in told] == [0, 0, 0]
    assert 0 <= seen["age_s"] < HOUR_S / 2
    assert (in_time.status_code, in_time.json()["partial"]) == (200, False)
    assert too_late.status_code == 504


# --- 24: many workers start at once on a cold redis ------------------------------------------------------------------


def test_24_ten_workers_that_start_at_once_wait_apart_and_share_the_work(stack: JobStack) -> None:
    before = stack.calls()
    job = stack.submit(problems(40))
    stack.redis.kill()
    with CountingDoors(WORKERS, stack.redis.port).running() as doors:
        for port in doors.ports:
            stack.worker(E2H_JOBS_REDIS_URL=f"redis://127.0.0.1:{port}/0")
        wait_for(lambda: all(len(moments) > TRIES for moments in doors.tried), evidence=stack.outputs)
        tries = [moments[: TRIES + 1] for moments in doors.tried]
        stack.redis.start()
        doors.open()
        # The orchestrator finds out about the connection that it had.
        wait_for(lambda: httpx2.get(f"{stack.orchestrator.url}/v1/jobs/{job}", timeout=30).status_code == 200)
        ended = stack.end_of(job)
        opened, most = doors.total, doors.most
        wait_for(lambda: all(worker.metrics()["e2h_jobs_items_held"] == 0 for worker in stack.workers))
        steady = doors.now
        stack.close()
    shares = []
    for moments in tries:
        for k, (earlier, later) in list(enumerate(pairwise(moments)))[2:]:
            shares.append((later - earlier) / (SWEEP_S * 2**k))
    # Twice as long each time: at least half of that by the worker's clock, of which ours may see less.
    assert min(shares) > 0.25, shares
    # Without jitter none is below 1; with it, of twenty, one is almost surely.
    assert min(shares) < 0.9, shares
    assert max(most, opened) <= 2 * steady
    assert (ended["status"], ended["items_done"], ended["failed"]) == ("completed", 80, 0)
    assert set(calls_of(stack, before).values()) == {1}

"""Jobs through real processes: killed and stopped workers, poison, a redis that restarts, forgets or fills up."""

import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.integration.job_stack import JobStack, job_stack, problems, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

KILLS = 20
HELD_AT_ONCE = 4  # items, of two samples each


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobStack]:
    # Twenty kills among a hundred items may well hit one thrice, which is no fault of the item.
    with job_stack(tmp_path_factory.mktemp("jobs"), E2H_JOBS_DELIVERIES="10") as running:
        yield running


@pytest.fixture
def stack(shared: JobStack) -> Iterator[JobStack]:
    with shared.client() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    yield shared
    shared.close()


def lines(text: str, event: str) -> list[str]:
    return [line for line in text.splitlines() if f'"event": "{event}"' in line]


def test_one_worker_or_three_with_twenty_kills_make_the_same_table(stack: JobStack) -> None:
    items = problems(50)
    stack.worker()
    alone = stack.end_of(stack.submit(items))
    assert (alone["status"], alone["items_done"], alone["failed"]) == ("completed", 100, 0)
    once = stack.calls()
    assert set(once.values()) == {1}
    assert len(once) == 200
    assert stack.stop_workers() == [0]

    dice = random.Random(20)
    for _ in range(3):
        stack.worker()
    job = stack.submit(items)
    wait_for(lambda: stack.look(job)["items_done"] > 0)
    for _ in range(KILLS):
        time.sleep(dice.uniform(0.05, 0.4))
        dice.choice(stack.living).end(signal.SIGKILL)
        stack.worker()
    at_the_end = stack.look(job)
    among_kills = stack.end_of(job)
    assert at_the_end["items_done"] < 100, "the kills came too late to tell anything"
    assert (among_kills["status"], among_kills["items_done"], among_kills["failed"]) == ("completed", 100, 0)
    assert stack.table(job) == stack.table(alone["id"])
    # Beyond one each: what the killed workers held.
    assert sum(stack.calls().values()) <= 2 * 200 + KILLS * HELD_AT_ONCE * 2

"""A job in one process: `e2h up --jobs`, the demo pair, a redis of its own."""

import json

import httpx2
import pytest

from tests.integration.job_stack import ENDED, wait_for
from tests.integration.processes import Process

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def test_a_job_over_the_lab_is_run_beside_what_people_ask(all_in_one: Process) -> None:
    body = {"dataset": {"name": "lab", "limit": 1}, "n": 4, "chunk": 2, "sampling": {"temperature": 1.0}}
    response = httpx2.post(f"{all_in_one.url}/v1/jobs", json=body, timeout=60)
    assert response.status_code == 202, response.text
    job = response.json()
    url = f"{all_in_one.url}/v1/jobs/{job['id']}"
    ended = wait_for(lambda: (found := httpx2.get(url, timeout=60).json())["status"] in ENDED and found, 300)
    assert (ended["status"], ended["items_done"]) == ("completed", job["items_total"])
    lines = [json.loads(line) for line in httpx2.get(f"{url}/results", timeout=60).text.splitlines()]
    assert len(lines) * 2 == job["items_total"]
    assert all(len(line["samples"]) == 4 for line in lines)
    assert all(sample["scores"] for line in lines for sample in line["samples"] if sample["error"] is None)
    # Its file is there, so that a job outlives the process.
    assert httpx2.get(f"{all_in_one.url}/ready", timeout=60).json()["degraded"] == []

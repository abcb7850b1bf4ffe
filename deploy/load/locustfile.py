"""Load on `POST /v1/score` with locust, from the workload file of `e2h bench`.

    pip install locust
    locust -f deploy/load/locustfile.py --headless --users 32 --spawn-rate 8 --run-time 60s --host http://localhost:8102

Environment: `WORKLOAD` (a JSONL file), `SOLUTIONS` of each request (8), `E2H_API_KEY`. Users wait for an answer
before they ask again: a closed loop, which does not see what a pause costs those who come during it
(docs/decisions/0013).
"""

import itertools
import json
import os
import time
from pathlib import Path

from locust import HttpUser, constant, task

_DEFAULT = Path(__file__).resolve().parents[2] / "services" / "cli" / "bench" / "workload.jsonl"
SOLUTIONS = int(os.environ.get("SOLUTIONS", "8"))
ITEMS = [
    json.loads(line) for line in Path(os.environ.get("WORKLOAD", _DEFAULT)).read_text(encoding="utf-8").splitlines()
]
# Another for each run and process, so that no cache knows the problems from an earlier one.
_RUN = f"{time.time_ns() % 10**8:08d}"
_numbers = itertools.count()


def body(number: int) -> dict[str, object]:
    """A request: the problem of this number, over and over, each time under a number of its own."""
    item = ITEMS[number % len(ITEMS)]
    return {
        "problem": f"({_RUN}{number}) {item['problem']}",
        "solutions": [{"text": text} for text in item["solutions"][:SOLUTIONS]],
    }


def headers() -> dict[str, str]:
    """The key, where there is one."""
    key = os.environ.get("E2H_API_KEY", "").strip()
    return {"authorization": f"Bearer {key}"} if key else {}


class Caller(HttpUser):
    """Asks again as soon as it is answered."""

    wait_time = constant(0)

    @task
    def score(self) -> None:
        """One request; a 429 is the service's word that it is full, and shows as a failure of that name."""
        with self.client.post("/v1/score", json=body(next(_numbers)), headers=headers(), catch_response=True) as answer:
            if answer.status_code == 429:
                answer.failure("429: full")

"""How a real process ends, starts to, or refuses to: SIGTERM under load, streams that are cut, keys, addresses."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from services.runtime.keys import change_keys, new_key
from tests.integration.processes import ROOT, Process, free_port, running, service

pytestmark = pytest.mark.processes

SCORE = {"problem": "What is 6 times 7?", "solutions": [{"steps": ["6 times 7 is 42.", "# Answer\n\n42"]}]}
EVERYWHERE = "0.0.0.0"  # noqa: S104 - refused, which is what is tested


@contextmanager
def held(log: Path, **environment: str) -> Iterator[Process]:
    port = free_port()
    with running(["-m", "tests.integration.held_service", str(port)], log, port, **environment) as process:
        yield process


@dataclass
class Asked:
    """One request of a client under load."""

    began: float
    status: int | None  # None: no answer
    fault: str
    closes: bool


class Load:
    """Clients that ask without pause, each on a connection that it keeps while the server lets it."""

    def __init__(self, url: str, clients: int) -> None:
        self._url = url
        self._stop = threading.Event()
        self.asked: list[Asked] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    reply = client.post("/v1/score", json=SCORE)
                    closes = reply.headers.get("connection") == "close"
                    self.asked.append(Asked(began, reply.status_code, "", closes))
                except httpx2.HTTPError as error:
                    self.asked.append(Asked(began, None, type(error).__name__, closes=True))
                    time.sleep(0.05)


def test_a_service_under_load_that_is_told_to_stop_answers_all_that_it_accepted(tmp_path: Path) -> None:
    with service("verifier", tmp_path / "verifier.log", E2H_DRAIN_GRACE_S="2") as process:
        with Load(process.url, clients=6) as load:
            time.sleep(1.5)
            told = time.monotonic()
            process.popen.send_signal(signal.SIGTERM)
            states = []
            while process.popen.poll() is None:
                try:
                    states.append((time.monotonic() - told, httpx2.get(process.url + "/ready", timeout=5).json()))
                except httpx2.HTTPError:
                    break
                time.sleep(0.05)
            code = process.popen.wait(60)
        assert code == 0
    # Ready no more at once, and for as long as the listener accepts.
    assert len(states) > 1
    assert {state["status"] for at, state in states if at > 0.1} == {"draining"}
    grace = [asked for asked in load.asked if told + 0.2 < asked.began < told + 1.5]
    assert grace
    assert [asked for asked in load.asked if asked.began < told + 1.5 and asked.status != 200] == []
    assert all(asked.closes for asked in grace)  # whoever keeps connections is asked to let go
    assert {asked.status for asked in load.asked} <= {200, None}  # after the grace, nothing half done


def test_a_stream_that_outlives_the_drain_ends_with_its_reason(tmp_path: Path) -> None:
    with held(tmp_path / "log", E2H_DRAIN_GRACE_S="0.2", E2H_DRAIN_TIMEOUT_S="1") as process:
        body = {"problem": "p", "n": 2, "stream": True}
        events = []
        with httpx2.stream("POST", process.url + "/v1/generate", json=body, timeout=60) as response:
            for event in httpx2.EventSource(response):
                events.append(event)
                if len(events) == 1:
                    process.popen.send_signal(signal.SIGTERM)
        assert [event.event for event in events] == ["completion", "error"]
        told = json.loads(events[1].data)["error"]
        assert (told["code"], told["retryable"]) == ("draining", True)
        assert told["request_id"] == response.headers["x-request-id"]
        assert process.popen.wait(60) == 0
        assert "Traceback" not in process.output


def test_an_answer_that_outlives_the_drain_is_503(tmp_path: Path) -> None:
    with held(tmp_path / "log", E2H_DRAIN_GRACE_S="0", E2H_DRAIN_TIMEOUT_S="1") as process:
        replies: list[Any] = []
        url, body = process.url + "/v1/generate", {"problem": "p", "n": 2}
        asking = threading.Thread(target=lambda: replies.append(httpx2.post(url, json=body, timeout=60)))
        asking.start()
        while "e2h_http_inflight 2.0" not in httpx2.get(process.url + "/metrics", timeout=5).text:
            time.sleep(0.02)
        process.popen.send_signal(signal.SIGTERM)
        asking.join()
        assert (replies[0].status_code, replies[0].json()["error"]["code"]) == (503, "draining")
        assert int(replies[0].headers["retry-after"]) >= 1
        assert process.popen.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_it_ends_without_waiting(tmp_path: Path, number: signal.Signals) -> None:
    with held(tmp_path / "log", E2H_DRAIN_GRACE_S="300", E2H_DRAIN_TIMEOUT_S="300") as process:
        process.popen.send_signal(signal.SIGTERM)
        while httpx2.get(process.url + "/ready", timeout=5).status_code != 503:
            time.sleep(0.02)
        process.popen.send_signal(number)
        assert process.popen.wait(60) == 0


def test_a_person_at_a_terminal_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    with held(tmp_path / "log", E2H_DRAIN_GRACE_S="300") as process:
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(60) == 0


def test_keys_hold_in_a_real_process_and_sighup_reads_them_again(tmp_path: Path) -> None:
    file, (key, record) = tmp_path / "keys.json", new_key("acme", ["generate"])
    change_keys(file, lambda present: (record,))
    with held(tmp_path / "log", E2H_API_KEYS_FILE=str(file), E2H_DRAIN_GRACE_S="0") as process:
        url, body = process.url + "/v1/generate", {"problem": "p", "n": 1}
        headers = {"authorization": f"Bearer {key}"}
        assert httpx2.post(url, json=body).status_code == 401
        assert httpx2.post(url, json=body, headers=headers).status_code == 200
        change_keys(file, lambda present: ())
        process.popen.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10.0  # within a second, and room for a machine that others use
        while httpx2.post(url, json=body, headers=headers).status_code != 401:
            assert time.monotonic() < deadline, "a revoked key still works"
        assert process.popen.poll() is None
        output = process.output
    assert '"tenant": "acme"' in output
    assert key not in output
    assert key.split("_", 2)[2] not in output


def test_a_service_does_not_listen_beyond_loopback_without_keys(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.held_service", str(free_port())],
        cwd=ROOT,
        env={"E2H_HOST": EVERYWHERE, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["error", "mend"]
    assert "--insecure" in lines[1]


def test_told_to_be_insecure_it_listens_anywhere(tmp_path: Path) -> None:
    with held(tmp_path / "log", E2H_HOST=EVERYWHERE, E2H_INSECURE="true", E2H_DRAIN_GRACE_S="0") as process:
        assert httpx2.get(process.url + "/health").status_code == 200

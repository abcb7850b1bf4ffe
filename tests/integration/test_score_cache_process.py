"""The score cache between real processes: shared by verifiers, survived by them, seen by `e2h doctor`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import httpx2
import pytest

from tests.integration.processes import ROOT, Process, service
from tests.stores import RedisServer, redis_server, server_binaries
from tests.tiny import save_verifier

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

PASSWORD = "canary-91be"
PROBLEM = "What is 6 times 7?"
SOLUTIONS = [{"text": f"It is {n}.\n\n# Answer\n\n{n}"} for n in (41, 42, 43)]


def score(verifier: Process) -> list[Any]:
    body = {"problem": PROBLEM, "solutions": SOLUTIONS}
    response = httpx2.post(f"{verifier.url}/v1/score", json=body, timeout=60)
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["solutions"]
    return found


def lines(verifier: Process, event: str) -> list[Any]:
    found = [json.loads(line) for line in verifier.output.splitlines() if line.startswith("{")]
    return [line for line in found if event in line["event"]]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(server_binaries()["valkey"], tmp_path, PASSWORD) as server:
        yield server


def test_what_one_verifier_scored_another_knows_and_both_outlive_the_cache(redis: RedisServer, tmp_path: Path) -> None:
    settings = {"E2H_VERIFIER_MODEL": str(save_verifier(tmp_path / "model")), "E2H_VERIFIER_CACHE_URL": redis.url}
    with service("verifier", tmp_path / "first.log", **settings) as first:
        scored = score(first)
    assert [s["cached"] for s in scored] == [False] * 3
    with service("verifier", tmp_path / "second.log", **settings) as second:
        known = score(second)
        assert [{**s, "cached": False} for s in known] == scored
        assert [s["cached"] for s in known] == [True] * 3
        with cohere.Client(api_key="none", base_url=second.url) as client:
            ranked = client.rerank(query=PROBLEM, documents=[s["text"] for s in SOLUTIONS]).results
        assert {r.index: r.relevance_score for r in ranked} == {s["index"]: s["aggregate"]["prod"] for s in scored}
        redis.kill()
        for _ in range(10):
            assert [s["cached"] for s in score(second)] == [False] * 3
        assert httpx2.get(f"{second.url}/ready").json()["degraded"] != []
        (line,) = lines(second, "score cache failed")
        assert line["cache"] == f"redis://127.0.0.1:{redis.port}/0"
        assert PASSWORD not in second.output
    assert "Traceback" not in second.output


@pytest.mark.parametrize("up", [True, False])
def test_doctor_says_whether_the_cache_answers_and_shows_no_password(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, up: bool
) -> None:
    if not up:
        redis.kill()
    monkeypatch.setenv("E2H_VERIFIER_CACHE_URL", redis.url)
    monkeypatch.setenv("COLUMNS", "300")
    command = [sys.executable, "-m", "services.cli.main", "doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (0 if up else 1), done.stdout
    said = "answers (score cache)" if up else "does not answer (score cache): ConnectionError"
    assert f"redis://127.0.0.1:{redis.port}/0 {said}" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr


def test_an_address_that_is_none_ends_the_process_with_2_and_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2H_VERIFIER_CACHE_URL", f"http://:{PASSWORD}@127.0.0.1:6379")
    command = [sys.executable, "-m", "services.verifier"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "E2H_VERIFIER_CACHE_URL" in done.stderr
    assert PASSWORD not in done.stderr

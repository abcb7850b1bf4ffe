"""`e2h eval` through real processes: killed and run again, over services, over someone's vLLM server, and by itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet as pq
import pytest

from services.orchestrator.evaluation.store import ResultsStore
from tests.integration.conftest import Stack
from tests.integration.processes import ROOT, Process

pytestmark = pytest.mark.processes

PLAN = ["--dataset", "lab", "--limit", "10", "--n", "8", "--chunk", "4", "--seed", "5", "--max-tokens", "200"]
TOTAL = 80


def start(report: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "services.cli.main", "eval", *PLAN, "--report", str(report), *options]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_as_at_a_terminal,
    )


def _as_at_a_terminal() -> None:
    """A shell that runs the tests in its background has interrupts ignored, and so would what is started here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: subprocess.Popen[bytes]) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err.decode()
    return out.decode()


def over(three: Stack) -> list[str]:
    return ["--generator-url", three.generator.url, "--verifier-url", three.verifier.url, "--concurrency", "1"]


def sampled(generator: Process) -> float:
    """How many samples the generator has made."""
    lines = httpx2.get(f"{generator.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("e2h_generator_samples_total"))


def rows(report: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(report / "samples.parquet").to_pylist())


def test_killed_in_the_middle_it_goes_on_and_makes_no_kept_sample_twice(three: Stack, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole, *over(three)))
    before = sampled(three.generator)
    first = start(killed, *over(three))
    store = ResultsStore(str(killed))
    deadline = time.monotonic() + 120
    while len(store.parts()) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    for pipe in (first.stdout, first.stderr):
        pipe.close()  # type: ignore[union-attr]
    kept = len(store.parts())
    assert 5 <= kept < TOTAL / 4
    finish(start(killed, *over(three)))
    # One item of four samples ran when the kill came; at most it was made twice.
    assert TOTAL <= sampled(three.generator) - before <= TOTAL + 4
    # vLLM on a CPU: the same samples in the same batches (docs/decisions/0015); scores agree within float32's sums.
    for one, other in zip(rows(whole), rows(killed), strict=True):
        assert one["completions"] == other["completions"]
        assert one["correct"] == other["correct"]
        for a, b in zip(one["scores"], other["scores"], strict=True):
            assert a == pytest.approx(b, abs=1e-4)


def test_the_report_tells_levels_rules_and_intervals_and_can_be_made_again(three: Stack, tmp_path: Path) -> None:
    table = finish(start(tmp_path, *over(three)))
    assert "majority" in table
    written = {file.name for file in tmp_path.iterdir()}
    assert {"report.json", "report.md", "samples.parquet", "manifest.json"} <= written
    assert any(name.endswith(".png") for name in written)
    report = (tmp_path / "report.json").read_bytes()
    command = [sys.executable, "-m", "services.cli.main", "report", str(tmp_path)]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr.decode()
    assert (tmp_path / "report.json").read_bytes() == report
    assert json.loads(report)


def test_kept_samples_are_scored_again_and_not_sampled_again(three: Stack, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    finish(start(first, *over(three)))
    before = sampled(three.generator)
    url = ["--verifier-url", three.verifier.url]
    again = [sys.executable, "-m", "services.cli.main", "eval", "--samples-from", str(first), "--report", str(second)]
    done = subprocess.run([*again, *url], cwd=ROOT, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert sampled(three.generator) == before
    assert [row["completions"] for row in rows(second)] == [row["completions"] for row in rows(first)]
    assert all(
        scores for row in rows(second) for scores, text in zip(row["scores"], row["completions"], strict=True) if text
    )
    refused = subprocess.run([*again, *url, "--n", "4"], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert b"leave out --n" in refused.stderr


def test_a_model_behind_any_vllm_server_is_evaluated_with_the_same_command(
    three: Stack, vllm_server: Process, tmp_path: Path
) -> None:
    finish(
        start(
            tmp_path,
            *("--openai-url", f"{vllm_server.url}/v1", "--openai-model", "models/generator"),
            *("--verifier-url", three.verifier.url),
            E2H_ORCHESTRATOR_OPENAI_STYLE="easy-to-hard",
        )
    )
    found = rows(tmp_path)
    assert sum(len(row["completions"]) for row in found) == TOTAL
    assert all(scores for row in found for scores, text in zip(row["scores"], row["completions"], strict=True) if text)


def test_alone_it_loads_both_models_and_an_interrupt_keeps_what_is_there(tmp_path: Path) -> None:
    longer = ("--limit", "50")  # enough to be amid it when the interrupt comes
    first = start(tmp_path, "--concurrency", "1", *longer)
    store = ResultsStore(str(tmp_path))
    deadline = time.monotonic() + 240
    while len(store.parts()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 130, err.decode()
    assert b"goes on from there" in err
    assert 2 <= len(store.parts()) < 5 * TOTAL / 4
    finish(start(tmp_path, *longer))
    assert len(rows(tmp_path)) == 50

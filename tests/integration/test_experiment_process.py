"""`make experiment-smoke`: models trained, served by the real services' code, evaluated by `e2h eval`, reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.orchestrator.evaluation.store import ResultsStore
from tests.integration.processes import ROOT
from training.experiment.stages import GENERATOR, POLICIES, RECORD, SAMPLED, VERIFIERS

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]
STAGES = 1 + len(VERIFIERS) + len(POLICIES) + len(VERIFIERS) + len(POLICIES)


def make(target: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The target with the interpreter that runs the tests: nothing is installed for it."""
    command = ["make", "--old-file=.venv/.installed", target, f"BIN={Path(sys.executable).parent}", f"OUT={out}", *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)


def experiment(config: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.experiment", f"training/configs/{config}.toml", "--out", str(out), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_smoke_trains_serves_evaluates_and_reports_within_six_gib(tmp_path: Path) -> None:
    out = tmp_path / "out"
    begun = experiment("experiment-smoke", out, "--until", GENERATOR)
    assert begun.returncode == 0, begun.stderr
    assert [json.loads(line)["stage"] for line in (out / "seed-1" / RECORD).read_text().splitlines()] == [GENERATOR]
    done = make("experiment-smoke", out)
    assert done.returncode == 0, done.stderr + "".join(log.read_text() for log in out.glob("*/log.txt"))
    record = (out / "seed-1" / RECORD).read_text()
    stages = [json.loads(line) for line in record.splitlines()]
    assert len({one["stage"] for one in stages}) == len(stages) == STAGES
    assert max(one["peak_gib"] for one in stages) < 6
    page = (out / "experiment.md").read_text()
    assert [f"**({letter})**" in page for letter in "abcde"] == [True] * 5
    assert all((out / name).stat().st_size > 10_000 for name in ("experiment-accuracy.png", "experiment-policies.png"))
    # Verifiers scored the very samples of the first.
    kinds = {}
    for name, kind, _ in VERIFIERS:
        stored = ResultsStore(str(out / "seed-1" / f"eval-{name}"))
        kinds[name] = (kind, [sample.text for found in stored.read() for sample in found.samples])
        served = stored.manifest().verifier
        assert served is not None
        assert served.kind == kind
    assert all(texts == kinds[SAMPLED][1] for _, texts in kinds.values())
    # Again: nothing is trained or sampled anew, and another plan is not mixed in.
    again = make("experiment-smoke", out)
    assert again.returncode == 0, again.stderr
    assert (out / "seed-1" / RECORD).read_text() == record
    refused = experiment("experiment", out)
    assert refused.returncode == 2
    assert "another experiment" in refused.stderr

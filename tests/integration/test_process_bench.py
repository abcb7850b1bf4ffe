"""`e2h process-bench` with the demo verifier, loaded here and asked on a server."""

from pathlib import Path

import pytest

from services.cli.process_bench import run_process_bench
from services.orchestrator.evaluation.process_bench import ProcessQuality
from tests.integration.processes import Process

FIXTURE = Path(__file__).parent.parent / "evaluation" / "data" / "first_errors.jsonl"


@pytest.mark.processes
@pytest.mark.timeout(600)
def test_the_demo_verifier_finds_errors_here_as_on_a_server(
    all_in_one: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for url in (None, all_in_one.url):
        assert run_process_bench(str(FIXTURE), None, url, 0.5, None, True) == 0
        found.append(ProcessQuality.model_validate_json(capsys.readouterr().out))
    here, there = found
    assert [s.split for s in here.splits] == ["all", "easy", "hard"]
    for mine, its in zip(here.splits, there.splits, strict=True):
        assert mine.step_auroc == pytest.approx(its.step_auroc, abs=1e-3)
        assert mine.unscored == its.unscored == 0
    # Better than chance: 0.5, and for F1 at most one error located in as many steps as a solution has.
    assert here.splits[0].step_auroc is not None
    assert here.splits[0].step_auroc > 0.6
    assert here.mean_f1 is not None
    assert here.mean_f1 > 0.3

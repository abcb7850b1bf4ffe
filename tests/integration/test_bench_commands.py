"""`e2h bench` and `e2h process-bench` from start to end, with what they write; test_load_tester_process.py tests what
they measure.
"""

import json
from pathlib import Path

import pytest

from services.cli.bench.report import read_report
from services.cli.process_bench import run_process_bench
from services.orchestrator.evaluation.process_bench import ProcessQuality
from tests.integration.processes import Process, e2h, free_port

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

FIXTURE = Path(__file__).parent.parent / "evaluation" / "data" / "first_errors.jsonl"


def test_bench_verifier_starts_the_demo_and_writes_report_and_plot_and_compares(tmp_path: Path) -> None:
    out, plot = tmp_path / "r.json", tmp_path / "r.png"
    shared = ("verifier", "--rate", "5", "--duration", "3", "--closed-loop", "2", "--solutions", "4")
    done = e2h("bench", *shared, "--json", str(out), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    assert "Closed loop" in done.stdout
    report = read_report(out)
    assert [phase.name for phase in report.phases] == ["closed loop of 2", "5 a second"]
    for phase in report.phases:
        assert phase.statuses["200"] > 0
        assert set(phase.parts) == {"tokenize", "queue", "inference", "rest"}
        assert 0 < phase.waste < 1
        assert sum(phase.batch_solutions.counts[2:]) == phase.statuses["200"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = e2h("bench", *shared, "--compare", str(out), "--seed", "1")
    assert again.returncode == 0, again.stderr
    assert "seed" in again.stdout
    assert "New by old" in again.stdout


def test_bench_solve_asks_for_solutions_and_says_where_the_time_went(all_in_one: Process, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    done = e2h(
        "bench", "solve", "--url", all_in_one.url, "--rate", "1", "--duration", "3", "--n", "2",
        "--strategy", "best_of_n", "--arrivals", "constant", "--timeout", "120", "--json", str(out),
        "--plot", str(tmp_path / "r.png"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = read_report(out)
    (phase,) = report.phases
    assert phase.statuses == {"200": 3}
    assert set(phase.parts) == {"generate", "verify", "vote", "rest"}
    assert phase.parts["generate"] > 0
    assert phase.tokens_a_second > 0
    assert (report.settings["n"], report.settings["strategy"]) == (2, "best_of_n")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        pytest.param(["--rate", "fast"], 2, "sweep", id="no rate"),
        pytest.param(["--rate", "-1"], 2, "sweep", id="a negative rate"),
        pytest.param(["--workload", "none.jsonl"], 2, "cannot read", id="no workload"),
        pytest.param(["--solutions", "17"], 2, "17 are asked for", id="more solutions than there are"),
        pytest.param(["--compare", "none.json"], 2, "cannot read", id="no old report"),
    ],
)
def test_bad_options_end_with_one_clear_line_before_anything_is_started(
    arguments: list[str], code: int, told: str
) -> None:
    done = e2h("bench", "verifier", *arguments)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_answered_is_a_failure(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    url = f"http://127.0.0.1:{free_port()}"
    done = e2h("bench", "verifier", "--url", url, "--rate", "5", "--duration", "1", "--json", str(out))
    assert done.returncode == 1
    assert json.loads(out.read_text())["phases"][0]["statuses"] == {"transport": pytest.approx(5, abs=5)}


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

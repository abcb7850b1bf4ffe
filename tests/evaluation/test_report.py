"""The report of a small store, from samples to files."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from services.cli.report import run_report
from services.core.contracts import EvaluationPlan, EvaluationProblem, Manifest
from services.core.errors import InvalidRequest, NotFound
from services.orchestrator.evaluation.findings import Report
from services.orchestrator.evaluation.items import Item, digest_of
from services.orchestrator.evaluation.report import build_report, write_report
from services.orchestrator.evaluation.store import ResultsStore
from tests.evaluation.made_up import made_up_store, sample

LEVELS = (1, 2, 3, 4, 5, 5)
FILES = ["report.json", "report.md", "accuracy.png", "compute.png", "selection-gap.png", "reliability.png"]


def strict(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def test_a_report_holds_every_rule_at_every_k_for_every_group(tmp_path: Path) -> None:
    report = build_report(made_up_store(str(tmp_path), LEVELS))
    names = ["all", "easy", "hard", *(f"level {i}" for i in range(1, 6))]
    assert [group.name for group in report.groups] == names
    for group in report.groups:
        labels = [curve.label for curve in group.curves]
        hows = ("prod", "min", "mean", "last", "outcome")
        scored = [f"{rule} ({how})" for rule in ("weighted", "best_of_n") for how in hows]
        own = ["weighted (likelihood)", "weighted (likelihood_per_token)"]
        assert labels == ["pass@k (oracle)", "majority", *scored, *own]
        for curve in group.curves:
            assert [point.k for point in curve.points] == [1, 2, 4, 8]
            assert all(0 <= point.accuracy.mean <= 1 for point in curve.points)
            for point, oracle in zip(curve.points, group.curves[0].points, strict=True):
                gap = oracle.accuracy.mean - point.accuracy.mean
                assert point.oracle_gap.mean == pytest.approx(gap, abs=2e-6)
    assert (report.problems, report.complete, report.graded, report.samples) == (6, 6, 6, 48)


def test_compute_counts_the_verifier_where_it_is_asked(tmp_path: Path) -> None:
    (group, *_) = build_report(made_up_store(str(tmp_path), LEVELS)).groups
    majority, weighted = group.curve("majority"), group.curve("weighted", "min")
    assert majority is not None
    assert weighted is not None
    assert [p.verifier_tokens for p in majority.points] == [0, 0, 0, 0]
    for k, plain, verified in zip((1, 2, 4, 8), majority.points, weighted.points, strict=True):
        assert plain.generator_tokens == pytest.approx(k * majority.points[0].generator_tokens, abs=1e-4)
        assert verified.verifier_tokens == pytest.approx(2 * verified.generator_tokens, abs=1e-4)


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    finished = made_up_store(f"{tmp_path}/a", LEVELS)
    parts = made_up_store(f"{tmp_path}/b", LEVELS)
    finished.finish()
    for store, place in ((finished, "first"), (parts, "second")):
        assert write_report(build_report(store), f"file://{tmp_path}/{place}") == FILES
    for name in FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_the_files_are_json_markdown_and_images(tmp_path: Path) -> None:
    report = build_report(made_up_store(str(tmp_path), LEVELS))
    write_report(report, str(tmp_path / "report"))
    content = (tmp_path / "report" / "report.json").read_text()
    json.loads(content, parse_constant=strict)
    assert Report.model_validate_json(content) == report
    text = (tmp_path / "report" / "report.md").read_text()
    for expected in ("## hard: 3 problems", "| weighted | min |", "| pass@k (oracle) |", "## Levels", "| min | 0."):
        assert expected in text
    for name in FILES[2:]:
        image = (tmp_path / "report" / name).read_bytes()
        width, height = struct.unpack(">II", image[16:24])
        assert image.startswith(b"\x89PNG")
        assert width > 800
        assert height > 400
        assert f"({name})" in text


@pytest.mark.parametrize("levels", [pytest.param([None] * 4, id="no levels"), pytest.param([4], id="one hard problem")])
def test_other_data_sets_are_reported_without_a_warning(tmp_path: Path, levels: list[int | None]) -> None:
    report = build_report(made_up_store(str(tmp_path), levels))
    assert write_report(report, str(tmp_path / "report")) == FILES
    expected = ["all"] if levels[0] is None else ["all", "hard", "level 4"]
    assert [group.name for group in report.groups] == expected
    has_interval = report.groups[0].curves[0].points[0].accuracy.low is not None
    assert has_interval is (len(levels) > 1)


def test_without_a_verifier_majority_is_held_to_the_oracle_and_to_likelihood(tmp_path: Path) -> None:
    report = build_report(made_up_store(str(tmp_path), LEVELS, verifier=None))
    assert [curve.label for curve in report.groups[0].curves] == [
        "pass@k (oracle)",
        "majority",
        "weighted (likelihood)",
        "weighted (likelihood_per_token)",
    ]
    assert write_report(report, str(tmp_path / "report")) == ["report.json", "report.md", "accuracy.png", "compute.png"]


def test_one_sample_a_problem_is_enough(tmp_path: Path) -> None:
    report = build_report(made_up_store(str(tmp_path), LEVELS, n=1))
    assert report.groups[0].differences == []
    assert write_report(report, str(tmp_path / "report")) == FILES


def test_of_a_half_done_evaluation_complete_problems_enter(tmp_path: Path) -> None:
    store = made_up_store(str(tmp_path), LEVELS)
    (tmp_path / "parts" / f"{Item(2, 4, 4).name}.parquet").unlink()
    report = build_report(store)
    assert (report.problems, report.complete) == (6, 5)
    write_report(report, str(tmp_path / "report"))
    assert "5 of 6 problems" in (tmp_path / "report" / "report.md").read_text()


def test_places_without_a_complete_problem_say_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        build_report(ResultsStore(str(tmp_path / "none")))
    store = made_up_store(str(tmp_path), [1])
    (tmp_path / "parts" / f"{Item(0, 4, 4).name}.parquet").unlink()
    with pytest.raises(NotFound):
        build_report(store)
    with pytest.raises(InvalidRequest):
        write_report(build_report(made_up_store(str(tmp_path / "x"), [1])), "nosuchprotocol://x")


def test_problems_without_a_gold_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    problems = [EvaluationProblem(id=f"p{i}", problem="?", answer="1" if i else None) for i in range(2)]
    manifest = Manifest(
        dataset="d", digest=digest_of(problems), problems=2, plan=EvaluationPlan(n=1), generator="g", verifier=None
    )
    store = ResultsStore(str(tmp_path))
    store.begin(manifest, problems)
    store.write_part(Item(0, 0, 1), [sample("1")])
    with pytest.raises(InvalidRequest) as refused:
        build_report(store)
    assert refused.value.code == "no_answers"
    store.write_part(Item(1, 0, 1), [sample("1", right=True)])
    report = build_report(store)
    assert (report.complete, report.graded, report.groups[0].curves[0].points[0].accuracy.mean) == (2, 1, 1.0)


def test_the_command_writes_beside_the_samples_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up_store(str(tmp_path), LEVELS).finish()
    assert run_report(str(tmp_path), None, 50, 0, False) == 0
    told = capsys.readouterr().out
    assert "weighted (min)" in told
    assert "hard (3)" in told
    assert {file.name for file in tmp_path.iterdir()} >= set(FILES)
    assert run_report(str(tmp_path), str(tmp_path / "out"), 50, 7, True) == 0
    assert Report.model_validate_json(capsys.readouterr().out).report_seed == 7
    assert (tmp_path / "out" / "report.md").exists()


def test_the_command_ends_with_one_line_where_there_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        run_report(str(tmp_path), None, 200, 0, False)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == "error: there is no evaluation at this place [not_found]\n"


_MANY = """
import sys
from services.orchestrator.evaluation.report import build_report, write_report
from services.orchestrator.evaluation.store import ResultsStore

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * 4 // 1024

def make(count):
    for _ in range(count):
        write_report(build_report(ResultsStore(sys.argv[1])), sys.argv[2])
    return resident_mib()

print(make(4), make(8))
"""


def test_more_reports_take_no_more_memory(tmp_path: Path) -> None:
    """What a worker's memory rises by when it makes reports, it rises by once."""
    made_up_store(str(tmp_path / "store"), LEVELS).finish()
    command = [sys.executable, "-c", _MANY, str(tmp_path / "store"), str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    few, many = map(int, done.stdout.split())
    assert many - few < 40  # a figure that is kept is some 5 MiB, and 32 are drawn in between

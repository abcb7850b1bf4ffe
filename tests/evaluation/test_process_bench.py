"""ProcessBench's columns in, first-error F1 out: what is read, what is refused, how the verifier is asked."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from services.cli.process_bench import run_process_bench
from services.core.contracts import ItemError
from services.core.errors import E2HError, InvalidRequest, NotFound, Overloaded, UpstreamContract
from services.orchestrator.evaluation.process_bench import (
    LabelledSolution,
    process_quality,
    read_solutions,
)
from services.orchestrator.evaluation.step_scores import score_steps
from tests.fakes import FakeVerifier
from training.lab.checker import check
from training.lab.domain import Split, make_problem

# Solutions of held-out problems of the lab, easy and hard: right ones, and ones that `training.lab.corrupt` put errors
# in, labelled by the lab's exact checker.
FIXTURE = Path(__file__).parent / "data" / "first_errors.jsonl"
ROW: dict[str, Any] = {"problem": "2 + 2?", "steps": ["Two.", "Five."], "label": 1}


def solutions(*rows: dict[str, Any]) -> list[LabelledSolution]:
    return [LabelledSolution.model_validate({**ROW, **row}) for row in rows]


def test_rows_are_read_alike_from_lines_and_from_parquet(tmp_path: Path) -> None:
    rows = [{**ROW, "id": "gsm8k-0", "split": "gsm8k", "generator": "x"}, {**ROW, "id": "1", "label": -1, "split": "m"}]
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    pq.write_table(pa.Table.from_pylist(rows), table)
    found = read_solutions(str(lines))
    assert found == read_solutions(f"file://{table}")
    assert [(s.split, s.label, s.steps) for s in found] == [("gsm8k", 1, ROW["steps"]), ("m", -1, ROW["steps"])]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        pytest.param("{", "line 2 is not JSON", id="no JSON"),
        pytest.param("[" * 10_000, "line 2 is not JSON", id="deeper than any parser goes"),
        pytest.param("[]", "line 2: ", id="no object"),
        pytest.param(json.dumps({**ROW, "label": 2}), "line 2: the label is not the index of a step", id="label"),
        pytest.param(json.dumps({**ROW, "label": -2}), "line 2: label", id="a label under -1"),
        pytest.param(json.dumps({**ROW, "label": "1"}), "line 2: label", id="a label of text"),
        pytest.param(json.dumps({**ROW, "label": True}), "line 2: label", id="a label of a truth value"),
        pytest.param(json.dumps({**ROW, "steps": []}), "line 2: steps", id="no steps"),
        pytest.param(json.dumps({**ROW, "steps": ["a", " "]}), "line 2: steps", id="a blank step"),
        pytest.param(json.dumps({**ROW, "problem": " "}), "line 2: ", id="a blank problem"),
        pytest.param(json.dumps({"problem": "secret", "steps": ["secret"]}), "line 2: label", id="a missing column"),
    ],
)
def test_a_line_that_is_none_is_named_and_not_echoed(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(ROW)}\n{line}\n")
    with pytest.raises(InvalidRequest) as refused:
        read_solutions(str(file))
    assert refused.value.message.startswith(told)
    assert "secret" not in refused.value.message


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty.jsonl", tmp_path / "broken.parquet"
    empty.write_text("\n")
    broken.write_bytes(b"PAR1 and no more")
    for place, fault in [
        (tmp_path / "none.jsonl", NotFound),
        (empty, InvalidRequest),
        (broken, InvalidRequest),
        (tmp_path, InvalidRequest),
        ("nosuchprotocol://x", InvalidRequest),
    ]:
        with pytest.raises(fault):
            read_solutions(str(place))


async def test_solutions_of_a_problem_are_scored_together_and_come_back_in_order() -> None:
    rows = solutions(
        {"problem": "a", "steps": ["0.1", "0.2"], "label": -1},
        {"problem": "b", "steps": ["0.3"], "label": 0},
        {"problem": "a", "steps": ["0.4"], "label": -1},
    )
    heard: list[int] = []
    verifier = FakeVerifier(score_of=float)
    found = await score_steps(verifier, rows, heard.append)
    assert found.scores == ((0.1, 0.2), (0.3,), (0.4,))
    assert [[s.steps for s in request.solutions] for request in verifier.requests] == [
        [["0.1", "0.2"], ["0.4"]],
        [["0.3"]],
    ]
    assert (sum(heard), found.model) == (3, "fake-verifier")


class Refusing(FakeVerifier):
    """Refuses its first calls for load."""

    async def score(self, request: Any) -> Any:
        if len(self.requests) < 2:
            self.requests.append(request)
            raise Overloaded("full", retry_after_s=0.001)
        return await super().score(request)


async def test_a_full_queue_is_asked_again() -> None:
    verifier = Refusing(score_of=lambda step: 0.75)
    found = await score_steps(verifier, solutions({}))
    assert found.scores == ((0.75, 0.75),)
    assert len(verifier.requests) == 3


@pytest.mark.parametrize(
    ("verifier", "fault"),
    [
        pytest.param(FakeVerifier(kind="orm"), InvalidRequest, id="a verifier without step scores"),
        pytest.param(FakeVerifier(extra_steps=1), UpstreamContract, id="a score too many"),
        pytest.param(FakeVerifier(failure=NotFound("gone")), NotFound, id="a verifier that fails"),
    ],
)
async def test_what_cannot_be_measured_is_said(verifier: FakeVerifier, fault: type[E2HError]) -> None:
    with pytest.raises(fault):
        await score_steps(verifier, solutions({}, {"problem": "another"}))


async def test_a_solution_without_scores_counts_as_not_found() -> None:
    error = ItemError(code="context_length_exceeded", message="too long")
    verifier = FakeVerifier(lambda step: 0.9, error_of=lambda text: error if "long" in text else None)
    rows = solutions({"label": -1}, {"label": -1, "steps": ["long"]})
    scored = await score_steps(verifier, rows)
    (quality,) = process_quality(rows, scored.scores, "m", "prm", threshold=0.5).splits
    assert (quality.unscored, quality.accuracy_correct, quality.f1, quality.step_auroc) == (1, 0.5, None, None)


def test_splits_have_numbers_of_their_own_and_a_mean() -> None:
    rows = solutions(
        {"split": "x"}, {"split": "x", "label": -1}, {"split": "y"}, {"split": "y", "label": -1}, {"split": "y"}
    )
    scores = [(0.7, 0.3), (0.7, 0.6), (0.7, 0.6), (0.9, 0.9), (0.7, 0.3)]
    quality = process_quality(rows, scores, "m", "prm", threshold=0.5)
    assert {s.split: s.f1 for s in quality.splits} == {"all": 0.8, "x": 1.0, "y": round(2 * 0.5 / 1.5, 6)}
    assert quality.mean_f1 == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)
    tuned = process_quality(rows, scores, "m", "prm", threshold=0.5, tune_on="y")
    assert (tuned.tuned_on, tuned.threshold) == ("y", 0.7)
    assert [s.accuracy_erroneous for s in tuned.splits] == [1.0, 1.0, 1.0]
    with pytest.raises(InvalidRequest):
        process_quality(rows, scores, "m", "prm", threshold=0.5, tune_on="z")
    with pytest.raises(InvalidRequest):
        process_quality(rows[:1], scores[:1], "m", "prm", threshold=0.5, tune_on="x")


def test_the_fixtures_labels_are_the_checkers() -> None:
    problems = {p.question: p for s in range(9_000_000, 9_000_200) for i in range(1, 6) for p in [held_out(i, s)]}
    for row in read_solutions(str(FIXTURE)):
        labels = check(problems[row.problem], "\n\n".join(row.steps)).labels
        assert row.label == (labels.index(False) if False in labels else -1)


def held_out(level: int, seed: int) -> Any:
    return make_problem(level, seed, Split.HELD_OUT)


def test_the_command_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        run_process_bench(str(tmp_path / "none.jsonl"), None, None, 0.5, None, True)
    assert ended.value.exit_code == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "error: there is no such file [not_found]\n")

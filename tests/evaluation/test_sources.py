"""Data sets: every form is read, and what is wrong with one is told with its line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.core.contracts import DatasetSource, EvaluationProblem
from services.core.equivalence import canonical_key
from services.core.errors import InvalidRequest, NotFound, UpstreamUnavailable
from services.orchestrator.evaluation.sources import BUILT_IN, load_problems
from training.lab.evaluation_set import lines

PUBLIC = Path(__file__).parents[3] / "shared" / "data"


def written(path: Path, rows: list[Any]) -> DatasetSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DatasetSource(path=str(path))


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        pytest.param({"problem": "q", "answer": "3"}, "3", id="as we name them"),
        pytest.param({"question": "q", "answer": "6 = <<6=6>>6\n#### 6"}, "6", id="GSM8K: after the mark"),
        pytest.param(
            {"problem": "q", "solution": "So \\boxed{\\frac{1}{2}}."}, "\\frac{1}{2}", id="MATH: out of the box"
        ),
        pytest.param({"problem": "q", "answer": 7}, "7", id="a number"),
        pytest.param({"problem": "q"}, None, id="no gold answer"),
    ],
)
def test_columns_are_found_by_their_usual_names(tmp_path: Path, row: Mapping[str, Any], answer: str | None) -> None:
    (problem,) = load_problems(written(tmp_path / "d.jsonl", [row]))
    assert problem == EvaluationProblem(id="0", problem="q", answer=answer)


@pytest.mark.parametrize(("given", "level"), [(3, 3), ("Level 5", 5), ("2", 2), ("Level ?", None), (None, None)])
def test_levels_are_read_as_they_are_written(tmp_path: Path, given: Any, level: int | None) -> None:
    (problem,) = load_problems(written(tmp_path / "d.jsonl", [{"problem": "q", "level": given}]))
    assert problem.level == level


def test_parquet_says_the_same_as_jsonl_with_columns_mapped(tmp_path: Path) -> None:
    rows = [{"name": f"n{i}", "ask": f"What is {i}?", "gold": str(i), "level": 1 + i % 5} for i in range(7)]
    columns = {"id": "name", "problem": "ask", "answer": "gold"}
    source = written(tmp_path / "d.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    from_lines = load_problems(DatasetSource.model_validate({"path": source.path, "columns": columns}))
    path = str(tmp_path / "d.parquet")
    assert load_problems(DatasetSource.model_validate({"path": path, "columns": columns})) == from_lines
    assert from_lines[6] == EvaluationProblem(id="n6", problem="What is 6?", answer="6", level=2)


@pytest.mark.parametrize(
    ("lines_", "told", "code"),
    [
        pytest.param(['{"problem": "a"}', "{"], "line 2 is not JSON", "invalid_json", id="no JSON"),
        pytest.param(['{"problem": "a"}', "", "[]"], "line 3 is not an object", "invalid_body", id="no object"),
        pytest.param(['{"x": 1}'], "line 1 has no problem", "invalid_body", id="no problem"),
        pytest.param(['{"problem": " "}'], "line 1 problem: the problem is blank", "invalid_body", id="blank"),
        pytest.param(['{"problem": "\\ud800"}'], "line 1 holds a lone surrogate", "invalid_unicode", id="surrogate"),
        pytest.param(['{"problem": "a", "level": 9}'], "line 1 has a level", "invalid_body", id="level out of range"),
        pytest.param(
            ['{"problem": "a", "solution": "?"}'], "line 1 has a solution without", "invalid_body", id="no box"
        ),
        pytest.param(['{"problem": "a", "answer": []}'], "line 1 has an answer", "invalid_body", id="answer is a list"),
        pytest.param(
            ['{"problem": "a", "id": 1}', '{"problem": "b", "id": "1"}'],
            "line 2 has the id of line 1",
            "duplicate_id",
            id="an id twice",
        ),
        pytest.param([""], "holds no problem", "empty", id="nothing"),
    ],
)
def test_a_fault_names_its_line_and_nothing_is_taken(tmp_path: Path, lines_: list[str], told: str, code: str) -> None:
    (tmp_path / "d.jsonl").write_text("\n".join(lines_))
    with pytest.raises(InvalidRequest, match=told) as refused:
        load_problems(DatasetSource(path=str(tmp_path / "d.jsonl")))
    assert refused.value.code == code


def test_ids_are_unique_among_items_of_a_request_too() -> None:
    items = [EvaluationProblem(id="a", problem="x"), EvaluationProblem(id="a", problem="y")]
    with pytest.raises(InvalidRequest, match="item 2 has the id of item 1"):
        load_problems(DatasetSource(items=items))


@pytest.mark.parametrize("path", ["missing.jsonl", "missing.parquet", "nosuchprotocol://x/d.jsonl"])
def test_a_file_that_is_not_there_is_not_found(tmp_path: Path, path: str) -> None:
    with pytest.raises(NotFound):
        load_problems(DatasetSource(path=path if "://" in path else str(tmp_path / path)))


def test_a_mapped_column_that_is_missing_is_told(tmp_path: Path) -> None:
    source = written(tmp_path / "d.jsonl", [{"problem": "a"}])
    with pytest.raises(InvalidRequest, match="mapped to `answer`"):
        load_problems(DatasetSource.model_validate({"path": source.path, "columns": {"answer": "gold"}}))


def test_a_limit_takes_from_the_levels_in_turn_and_keeps_the_order(tmp_path: Path) -> None:
    rows = [{"problem": f"q{i}", "level": 5 if i < 6 else 1} for i in range(12)]
    source = written(tmp_path / "d.jsonl", rows)
    taken = load_problems(DatasetSource(path=source.path, limit=5))
    assert [problem.id for problem in taken] == ["0", "1", "6", "7", "8"]


def test_the_labs_problems_are_those_that_its_generator_makes() -> None:
    problems = load_problems(DatasetSource(name="lab"))
    assert [problem.model_dump(exclude={"subject"}) for problem in problems] == [json.loads(line) for line in lines()]
    assert [problem.level for problem in load_problems(DatasetSource(name="lab", limit=10))] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
    ]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NotFound, match="math500, gsm8k, lab"):
        load_problems(DatasetSource(name="math5000"))


def test_the_hub_that_is_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UpstreamUnavailable, match="E2H_EVAL_DATA_DIR"):
        load_problems(DatasetSource(name="gsm8k"))


def test_what_the_hub_gives_is_read_like_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(repository: str, config: str | None, split: str) -> datasets.Dataset:
        assert (repository, config, split) == ("openai/gsm8k", "main", "train")
        return datasets.Dataset.from_list([{"question": "q", "answer": "#### 4"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    (problem,) = load_problems(DatasetSource(name="gsm8k", split="train"))
    assert (problem.problem, problem.answer) == ("q", "4")


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public data sets are not beside this checkout")
@pytest.mark.parametrize(("name", "count"), [("math500", 500), ("gsm8k", 1319)])
def test_public_data_sets_are_read_whole(name: str, count: int) -> None:
    assert name in BUILT_IN
    problems = load_problems(DatasetSource(name=name), PUBLIC)
    assert len(problems) == count
    assert all(problem.answer is not None and canonical_key(problem.answer) for problem in problems)

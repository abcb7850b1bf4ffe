"""Readers of the published formats, on excerpts written for these tests, and the faults they tell."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.core.steps import split_steps
from training.data import math_shepherd, metamath, prm800k
from training.data.files import rows
from training.data.lab import judged, lab_problems
from training.data.own import write_jsonl
from training.data.records import DataError, Demonstration, LabelledSolution
from training.data.sources import FileSource, LabSource, demonstrations, labelled, problems
from training.lab.corrupt import corrupt
from training.recipes.config import ConfigError, check_recipe


def completion(text: str, rating: int | None) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": None}


def step(*completions: dict[str, Any], chosen: int | None = 0, human: str | None = None) -> dict[str, Any]:
    written = None if human is None else {"text": human, "rating": None, "source": "human", "flagged": False}
    return {"completions": list(completions), "human_completion": written, "chosen_completion": chosen}


def prm_row(*steps: dict[str, Any], finish: str = "solution", answer: str = "12") -> dict[str, Any]:
    question = {"problem": "What is 3 times 4?", "ground_truth_answer": answer}
    return {"question": question, "label": {"steps": list(steps), "total_time": 1, "finish_reason": finish}}


def test_a_prm800k_solution_has_the_labels_of_its_chosen_completions() -> None:
    row = prm_row(
        step(completion("Let me think.", 0)),
        step(completion("3 + 4 = 7.", -1), completion("3 times 4 is 4 + 4 + 4.", 1), chosen=1),
        step(completion("That is 12.\n\n# Answer\n\n12", 1)),
    )
    other, whole = prm800k.read("x line 1", row)
    assert whole.steps == ["Let me think.", "3 times 4 is 4 + 4 + 4.", "That is 12.\n\n# Answer\n\n12"]
    assert (whole.labels, whole.outcome) == ([1.0, 1.0, 1.0], 1.0)
    assert (other.steps, other.labels, other.outcome) == (["Let me think.", "3 + 4 = 7."], [None, 0.0], None)
    assert split_steps(whole.solution) == whole.steps


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("It is 12.\n# Answer\n\n12", id="one newline before the header"),
        pytest.param("It is 12.\n\n# Answer\n12", id="one newline behind it"),
        pytest.param("It is 12.\n\n\n# Answer\n\n12\n", id="more than enough"),
    ],
)
def test_the_answer_block_stands_between_blank_lines(text: str) -> None:
    (solution,) = prm800k.read("x line 1", prm_row(step(completion(text, 1))))
    assert solution.steps == ["It is 12.\n\n# Answer\n\n12"]


def test_an_answer_block_alone_is_no_step_and_its_rating_is_the_outcome() -> None:
    row = prm_row(step(completion("It is 12.", 1)), step(completion("# Answer\n\nx y", -1)), answer="$x$ $y$ $z$")
    (solution,) = prm800k.read("x line 1", row)
    assert solution.steps == ["It is 12.\n\n# Answer\n\nx y"]
    assert (solution.labels, solution.outcome) == ([1.0], 0.0)


def test_a_solved_problem_has_a_right_outcome_where_the_quick_comparison_cannot_tell() -> None:
    last = completion("So.\n\n# Answer\n\n$\\int x dx$", 1)
    row = prm_row(step(last), answer="$\\int y dy$")
    (solved,) = prm800k.read("x line 1", row)
    row["label"]["finish_reason"] = "give_up"
    (open_,) = prm800k.read("x line 1", row)
    assert (solved.outcome, open_.outcome) == (1.0, None)


def test_a_wrong_final_answer_is_a_wrong_outcome() -> None:
    (solution,) = prm800k.read("x line 1", prm_row(step(completion("It is 13.\n\n# Answer\n\n13", -1))))
    assert (solution.labels, solution.outcome, solution.right) == ([0.0], 0.0, False)


def test_a_text_by_the_labeller_goes_on_as_a_right_step() -> None:
    row = prm_row(step(completion("No.", -1), chosen=None, human="4 + 4 + 4."), step(completion("It is 12.", 1)))
    wrong, whole = prm800k.read("x line 1", row)
    assert (whole.steps, whole.labels) == (["4 + 4 + 4.", "It is 12."], [1.0, 1.0])
    assert (wrong.steps, wrong.labels) == (["No."], [0.0])


def test_after_the_first_error_only_the_alternatives_are_left() -> None:
    first, last = completion("So far.", 1), [completion("Wrong.", -1), completion("Right.", 0)]
    found = list(prm800k.read("x line 1", prm_row(step(first), step(*last, chosen=None), finish="found_error")))
    assert [(s.steps, s.labels) for s in found] == [
        (["So far.", "Wrong."], [None, 0.0]),
        (["So far.", "Right."], [None, 1.0]),
        (["So far."], [1.0]),
    ]


def test_an_empty_completion_keeps_its_number_and_is_no_step() -> None:
    row = prm_row(step(completion("", None), completion("It is 12.", 1), chosen=1))
    (solution,) = prm800k.read("x line 1", row)
    assert solution.steps == ["It is 12."]


def test_a_broken_problem_teaches_nothing() -> None:
    assert list(prm800k.read("x line 1", prm_row(step(completion("Hm.", 1)), finish="bad_problem"))) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        pytest.param({}, "no question", id="no question"),
        pytest.param(prm_row(finish="done"), "finish_reason", id="an unknown end"),
        pytest.param(prm_row(step(completion("x", 2))), "rating", id="a rating of 2"),
        pytest.param(prm_row(step(completion("x", True))), "rating", id="a rating of true"),
        pytest.param(prm_row(step(completion("x", 1), chosen=1)), "chosen_completion", id="a choice that is none"),
        pytest.param(prm_row({"completions": 3}), "completions", id="no list of completions"),
    ],
)
def test_a_row_that_is_not_prm800k_is_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"^x line 7 .*{said}"):
        list(prm800k.read("x line 7", row))


def shepherd(first: str = "+", second: str = "+") -> dict[str, str]:
    text = "How much is 2 + 2? Step 1: 2 + 2 is a sum. ки\nStep 2: It is 4. The answer is: 4 ки"
    return {"input": text, "label": text.replace("ки", first, 1).replace("ки", second, 1), "task": "GSM8K"}


def test_math_shepherd_steps_lose_their_numbers_and_the_answer_gets_its_block() -> None:
    (solution,) = math_shepherd.read("x line 1", shepherd("+", "-"))
    assert solution.problem == "How much is 2 + 2?"
    assert solution.steps == ["2 + 2 is a sum.", "It is 4.\n\n# Answer\n\n4"]
    assert (solution.labels, solution.outcome) == ([1.0, 0.0], 0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"label": shepherd("+", "-")["input"]}, "label", id="tags left in the label"),
        pytest.param({"label": "something else"}, "label", id="another text"),
        pytest.param({"input": "no steps"}, "Step 1", id="no steps"),
        pytest.param({"input": "q Step 1: a ки b"}, "step tag", id="a text behind the last tag"),
        pytest.param({"input": 3}, "input", id="no text"),
    ],
)
def test_a_row_that_is_not_math_shepherd_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(math_shepherd.read("x line 1", {**shepherd(), **change}))


def test_metamath_lines_become_steps_and_formulas_stay_with_their_line() -> None:
    response = "We square both sides.\nThis gives\n\\[x^2\n= 4.\\]\nSo $x = 2$.\n#### 2\nThe answer is: 2"
    row = {"query": "Find x.", "response": response, "type": "MATH_Rephrased", "original_question": "Solve."}
    (found,) = metamath.read("x line 1", row)
    assert split_steps(found.solution) == [
        "We square both sides.",
        "This gives\n\\[x^2\n= 4.\\]",
        "So $x = 2$.\n\n# Answer\n\n2",
    ]


@pytest.mark.parametrize("response", ["No answer here.", "The answer is: ", "The answer is: 3"])
def test_a_metamath_response_without_steps_or_answer_is_refused(response: str) -> None:
    with pytest.raises(DataError, match="x line 1"):
        list(metamath.read("x line 1", {"query": "q", "response": response}))


def _write_jsonl(file: Path, items: list[Any]) -> None:
    file.write_text("".join(json.dumps(item) + "\n" for item in items))


def _write_parquet(file: Path, items: list[Any]) -> None:
    pq.write_table(pa.Table.from_pylist(items), file)


def _write_json(file: Path, items: list[Any]) -> None:
    file.write_text(json.dumps(items))


@pytest.mark.parametrize(
    ("name", "write"), [("a.jsonl", _write_jsonl), ("a.json", _write_json), ("a.parquet", _write_parquet)]
)
def test_rows_come_with_their_lines_from_every_kind_of_file(
    tmp_path: Path, name: str, write: Callable[[Path, list[Any]], None]
) -> None:
    write(tmp_path / name, [{"x": 1}, {"x": 2}])
    assert list(rows(str(tmp_path / name))) == [(f"{name} line 1", {"x": 1}), (f"{name} line 2", {"x": 2})]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("a.jsonl", b'{"x": 1}\n\n{"x"', "a.jsonl line 3 is not JSON", id="a cut line"),
        pytest.param("a.jsonl", b"\xff\n", "line 1 is not JSON", id="not UTF-8"),
        pytest.param("a.jsonl", b"[1]\n", "line 1 is not an object", id="a list for an object"),
        pytest.param("a.json", b'{"x": 1}', "not a list", id="an object for a list"),
        pytest.param("a.parquet", b"PAR1", "not a Parquet", id="no Parquet"),
        pytest.param("a.csv", b"x", "none of", id="an unknown kind"),
    ],
)
def test_a_file_that_is_broken_is_told_by_name_and_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(rows(str(tmp_path / name)))


def test_a_path_that_does_not_exist_is_no_hub_id() -> None:
    with pytest.raises(DataError, match="does not exist"):
        list(rows("/nowhere/at/all.jsonl"))


def test_levels_are_looked_up_in_math_by_the_problem(tmp_path: Path) -> None:
    easy, other = prm_row(step(completion("It is 12.", 1))), prm_row(step(completion("Hm.", 1)))
    other["question"]["problem"] = "Not in MATH."
    _write_jsonl(tmp_path / "phase1_train.jsonl", [easy])
    _write_jsonl(tmp_path / "phase2_train.jsonl", [easy, other])
    _write_jsonl(tmp_path / "math.jsonl", [{"problem": "What is  3 times 4?", "level": "Level 2"}])
    table = {
        "format": "prm800k",
        "path": str(tmp_path / "phase*_train.jsonl"),
        "levels_file": str(tmp_path / "math.jsonl"),
    }
    found = labelled([check_recipe(FileSource, {**table, "levels": [1, 2, 3]})])
    assert [(one.level, one.problem) for one in found] == [(2, "What is 3 times 4?")] * 2
    kept = labelled([check_recipe(FileSource, {**table, "levels": [1, 2, 3], "unknown_levels": True, "limit": 3})])
    assert [one.level for one in kept] == [2, 2, None]
    with pytest.raises(DataError, match="nothing"):
        labelled([check_recipe(FileSource, {**table, "levels": [5]})])


@pytest.mark.parametrize(
    "table",
    [
        pytest.param({"format": "prm800k", "path": "x.jsonl", "levels": [1]}, id="levels without MATH"),
        pytest.param({"format": "labelled", "path": "x.jsonl", "levels_file": "y"}, id="MATH without a need"),
        pytest.param({"format": "prm800k", "path": "x.jsonl", "unknown_levels": True}, id="unknown levels of none"),
        pytest.param({"format": "labelled", "path": "x.jsonl", "levels": [6]}, id="level 6"),
        pytest.param({"format": "csv", "path": "x.jsonl"}, id="an unknown format"),
    ],
)
def test_a_source_that_cannot_mean_what_it_says_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        check_recipe(FileSource, table)


def test_our_own_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    solution = LabelledSolution(problem="q", steps=["a", "b"], labels=[0.25, None], outcome=1.0, level=4)
    write_jsonl([solution], tmp_path / "own.jsonl")
    table = {"format": "labelled", "path": str(tmp_path / "own.jsonl")}
    assert labelled([check_recipe(FileSource, table)]) == [solution]
    with pytest.raises(DataError, match="nothing"):
        labelled([check_recipe(FileSource, {**table, "levels": [1]})])


def test_labels_that_are_not_one_a_step_are_refused(tmp_path: Path) -> None:
    _write_jsonl(tmp_path / "own.jsonl", [{"problem": "q", "steps": ["a", "b"], "labels": [1.0]}])
    with pytest.raises(DataError, match="line 1 has 1 labels for 2 steps"):
        labelled([FileSource(format="labelled", path=str(tmp_path / "own.jsonl"))])


def test_outcome_data_has_a_label_at_the_end_alone(tmp_path: Path) -> None:
    _write_jsonl(tmp_path / "orm.jsonl", [{"problem": "q", "text": "a\n\nb\n\n# Answer\n\n3", "correct": False}])
    (found,) = labelled([FileSource(format="outcomes", path=str(tmp_path / "orm.jsonl"))])
    assert (found.steps, found.labels, found.outcome) == (["a", "b\n\n# Answer\n\n3"], [None, None], 0.0)


def test_only_right_solutions_are_learned_from(tmp_path: Path) -> None:
    right = step(completion("It is 12.\n\n# Answer\n\n12", 1))
    wrong = step(completion("It is 13.\n\n# Answer\n\n13", -1))
    _write_jsonl(tmp_path / "prm.jsonl", [prm_row(right), prm_row(wrong), prm_row(step(completion("Hm.", 1)))])
    found = demonstrations([FileSource(format="prm800k", path=str(tmp_path / "prm.jsonl"))])
    assert found == [Demonstration(problem="What is 3 times 4?", solution="It is 12.\n\n# Answer\n\n12")]


def test_a_recipe_refuses_what_it_cannot_learn_from(tmp_path: Path) -> None:
    _write_jsonl(tmp_path / "m.jsonl", [{"query": "q", "response": "Yes.\nThe answer is: 3"}])
    with pytest.raises(DataError, match="metamath"):
        labelled([FileSource(format="metamath", path=str(tmp_path / "m.jsonl"))])


def test_lab_labels_are_the_checkers() -> None:
    (problem,) = lab_problems([3], 1, 0)
    text = corrupt(problem, random.Random(3)).text
    found = judged(problem, text)
    assert found is not None
    assert len(found.labels) == len(split_steps(text))
    (right,) = labelled([LabSource(format="lab", levels=[3], count=1)])
    assert right.right
    assert [one.answer for one in problems([LabSource(format="lab", levels=[3], count=1)])] == [problem.answer]

"""Our own JSONL formats, and the plain ones: labelled solutions, demonstrations, outcomes, problems. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from services.core.contracts import EvaluationProblem
from services.core.steps import split_steps
from training.data.files import Row, text_of
from training.data.records import DataError, Demonstration, LabelledSolution

Model = TypeVar("Model", bound=BaseModel)


def read_labelled(place: str, row: Row) -> Iterator[LabelledSolution]:
    """`{problem, steps, labels, outcome, level}` as `LabelledSolution` writes itself. Raises `DataError`."""
    found = _parsed(place, row, LabelledSolution)
    if len(found.labels) != len(found.steps):
        raise DataError(f"{place} has {len(found.labels)} labels for {len(found.steps)} steps")
    yield found


def read_demonstration(place: str, row: Row) -> Iterator[Demonstration]:
    """`{problem, solution, level}`. Raises `DataError`."""
    yield _parsed(place, row, Demonstration)


def read_problem(place: str, row: Row) -> Iterator[EvaluationProblem]:
    """`{id, problem, answer, level, subject}`. Raises `DataError`."""
    yield _parsed(place, row, EvaluationProblem)


def read_outcome(place: str, row: Row) -> Iterator[LabelledSolution]:
    """ORM data, `{problem, text, correct}` with an optional `level`: a solution, and whether its answer is right."""
    text, correct, level = text_of(place, row, "text"), row.get("correct"), row.get("level")
    if not isinstance(correct, bool):
        raise DataError(f"{place} has no true or false in correct")
    steps = split_steps(text)
    made = {"problem": row.get("problem"), "steps": steps, "labels": [None] * len(steps), "outcome": float(correct)}
    yield _parsed(place, {**made, "level": level}, LabelledSolution)


def write_jsonl(records: Iterable[BaseModel], file: Path) -> int:
    """One record a line; the number of records. The file appears when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    count = 0
    with part.open("w", encoding="utf-8") as sink:
        for record in records:
            sink.write(record.model_dump_json() + "\n")
            count += 1
    part.replace(file)
    return count


def _parsed(place: str, row: Row, kind: type[Model]) -> Model:
    try:
        return kind.model_validate(dict(row))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise DataError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

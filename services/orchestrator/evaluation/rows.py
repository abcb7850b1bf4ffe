"""From a row of any data set to an `EvaluationProblem`: which column is what, and what a gold answer is. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from services.core.answers import extract_answer
from services.core.contracts import MAX_ITEMS, EvaluationProblem
from services.core.errors import InvalidRequest, TooManyItems

Field = Literal["id", "problem", "answer", "level", "subject"]
Columns = Mapping[Field, str]
# The usual names of our fields, the first that a row has is taken.
_USUAL: Mapping[Field, tuple[str, ...]] = {
    "id": ("id", "unique_id", "problem_id"),
    "problem": ("problem", "question"),
    "answer": ("answer", "solution"),
    "level": ("level",),
    "subject": ("subject", "type"),
}
_SOLUTION = "solution"  # a column of this name holds whole solutions, whatever it is mapped to
_GSM8K_MARK = "####"
_LEVEL = re.compile(r"(?:Level )?([1-5])")
_UNKNOWN_LEVELS = (None, "", "Level ?")  # MATH has a few "Level ?"


def problems_of(rows: Iterable[tuple[str, Any]], columns: Columns) -> list[EvaluationProblem]:
    """The problems of rows, each with the place that it stands in (as "line 3"); all or none.

    `columns` names the column of a field where it is not a usual one. A problem without an id is named after its
    place. Raises `InvalidRequest` that tells the line, `TooManyItems`.
    """
    found: list[EvaluationProblem] = []
    seen: dict[str, str] = {}
    for line, row in rows:
        if len(found) == MAX_ITEMS:
            raise TooManyItems(f"a data set has at most {MAX_ITEMS} problems", param="dataset")
        problem = _problem(line, row, columns, place=len(found))
        if problem.id in seen:
            raise _fault(line, f"has the id of {seen[problem.id]}", code="duplicate_id")
        seen[problem.id] = line
        found.append(problem)
    if not found:
        raise InvalidRequest("the data set holds no problem", param="dataset", code="empty")
    return found


def _problem(line: str, row: Any, columns: Columns, place: int) -> EvaluationProblem:
    if not isinstance(row, Mapping):
        raise _fault(line, "is not an object")
    named = {field: _column(line, row, field, columns) for field in _USUAL}
    values = {field: None if column is None else row[column] for field, column in named.items()}
    problem = values["problem"]
    if not isinstance(problem, str):
        raise _fault(line, "has no problem: a column `problem` or `question`, or one that is mapped to it")
    if not all(_is_unicode(value) for value in values.values()):
        raise _fault(line, "holds a lone surrogate", code="invalid_unicode")
    try:
        return EvaluationProblem(
            id=str(place) if values["id"] is None else str(values["id"]),
            problem=problem,
            answer=_gold(line, values["answer"], whole=named["answer"] == _SOLUTION),
            level=_level(line, values["level"]),
            subject=values["subject"],
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _fault(line, f"{first['loc'][0]}: {first['msg']}") from None


def _column(line: str, row: Mapping[str, Any], field: Field, columns: Columns) -> str | None:
    if field not in columns:
        return next((name for name in _USUAL[field] if name in row), None)
    if columns[field] not in row:
        raise _fault(line, f"has no column of the name that is mapped to `{field}`")
    return columns[field]


def _gold(line: str, value: Any, *, whole: bool) -> str | None:
    """The gold answer: after `####` as in GSM8K, out of a whole solution as in MATH, else the value itself."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _fault(line, "has an answer that is neither a text nor a number")
    if _GSM8K_MARK in value:
        return value.rpartition(_GSM8K_MARK)[2].strip()
    if not whole:
        return value
    answer = extract_answer(value)
    if answer is None:
        raise _fault(line, "has a solution without a final answer, and no column `answer`")
    return answer


def _level(line: str, value: Any) -> int | None:
    """1 to 5, written as a number or as MATH writes it."""
    if value in _UNKNOWN_LEVELS:
        return None
    match = _LEVEL.fullmatch(str(value).strip())
    if match is None:
        raise _fault(line, "has a level that is not 1 to 5")
    return int(match.group(1))


def _is_unicode(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _fault(line: str, what: str, code: str = "invalid_body") -> InvalidRequest:
    return InvalidRequest(f"{line} {what}", param="dataset", code=code)

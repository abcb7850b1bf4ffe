"""MetaMATH (Yu et al., 2023): right solutions of rewritten problems. Pure: rows in, demonstrations out.

`response` has a sentence or a formula a line and ends in `The answer is: ...`. A line becomes a step; a displayed
formula stays with the line before it; what stands after the last `The answer is:` goes under `# Answer`. A `#### ...`
line of GSM8K is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.core.steps import ANSWER_HEADER, join_steps
from training.data.files import Row, text_of
from training.data.records import DataError, Demonstration

_MARK = "The answer is:"
_HASHES = "####"
_OPENS = ("\\[", "$$", "\\begin{")


def read(place: str, row: Row) -> Iterator[Demonstration]:
    """The demonstration of one row. Raises `DataError`."""
    problem, response = text_of(place, row, "query"), text_of(place, row, "response")
    reasoning, mark, answer = response.rpartition(_MARK)
    if not mark or not answer.strip():
        raise DataError(f"{place} has a response without a final answer")
    steps = _steps(reasoning)
    if not steps:
        raise DataError(f"{place} has a response without a step")
    yield Demonstration(problem=problem, solution=join_steps([*steps, ANSWER_HEADER, answer.strip()]))


def original_problem(row: Row) -> str | None:
    """The MATH problem that the query was made of, whose level is its level; None for GSM8K."""
    kind, original = row.get("type"), row.get("original_question")
    return original if isinstance(kind, str) and "MATH" in kind and isinstance(original, str) else None


def _steps(reasoning: str) -> list[str]:
    steps: list[str] = []
    inside = False
    for line in reasoning.splitlines():
        text = line.strip()
        if not text or text.startswith(_HASHES):
            continue
        opens = text.startswith(_OPENS)
        if steps and (inside or opens):
            steps[-1] += f"\n{text}"
        else:
            steps.append(text)
        inside = _still_inside(text, inside)
    return steps


def _still_inside(text: str, inside: bool) -> bool:
    """Whether a displayed formula is open after this line."""
    if text.count("$$") % 2:
        return not inside
    opened = sum(text.count(mark) for mark in ("\\[", "\\begin{"))
    closed = sum(text.count(mark) for mark in ("\\]", "\\end{"))
    return opened > closed if opened != closed else inside

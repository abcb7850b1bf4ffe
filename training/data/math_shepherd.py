"""Math-Shepherd (Wang et al., 2023): step labels by rollouts, as published. Pure: rows in, labelled solutions out.

`input` is `{problem} Step 1: ... ки\\nStep 2: ... ки`, `label` the same text with + or - where `input` has ки. The
label of the last step says whether the answer is right: behind it nothing is left to complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from services.core.steps import ANSWER_HEADER
from training.data.files import Row, text_of
from training.data.records import DataError, LabelledSolution

_TAG = "ки"
_LABEL = {"+": 1.0, "-": 0.0}
_FIRST = re.compile(r"\s*\bStep 1: ")
_NUMBER = re.compile(r"Step \d+: ?")
_ANSWER = re.compile(r"\s*\bThe answer is:?\s+(?P<answer>\S.*)", re.DOTALL)


def read(place: str, row: Row) -> Iterator[LabelledSolution]:
    """The labelled solution of one row. Raises `DataError`."""
    text, labelled = text_of(place, row, "input"), text_of(place, row, "label")
    first = _FIRST.search(text)
    if first is None:
        raise DataError(f"{place} has no Step 1 in input")
    problem, solution = text[: first.start()].strip(), text[first.end() :]
    labels = _labels(place, text, labelled)
    steps = [_NUMBER.sub("", part.strip(), count=1).strip() for part in solution.split(_TAG)[:-1]]
    if not problem or not all(steps):
        raise DataError(f"{place} has an empty problem or step")
    last = _ANSWER.search(steps[-1])
    outcome = None
    if last is not None:
        outcome = labels[-1]
        answer = last["answer"].strip()
        reasoning = steps[-1][: last.start()].strip() or f"The answer is {answer}"
        steps[-1] = f"{reasoning}\n\n{ANSWER_HEADER}\n\n{answer}"
    yield LabelledSolution(problem=problem, steps=steps, labels=labels, outcome=outcome)


def _labels(place: str, text: str, labelled: str) -> list[float | None]:
    """One label for each tag of `text`, read at the same place of `labelled`."""
    parts = text.split(_TAG)
    if len(parts) < 2 or parts[-1].strip():
        raise DataError(f"{place} has an input that does not end with its step tag")
    labels: list[float | None] = []
    at = 0
    for part in parts[:-1]:
        at += len(part)
        sign = labelled[at : at + 1]
        if labelled[at - len(part) : at] != part or sign not in _LABEL:
            raise DataError(f"{place} has a label that is not its input with + and - for the tags")
        labels.append(_LABEL[sign])
        at += 1
    return labels

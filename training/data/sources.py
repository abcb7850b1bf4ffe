"""The `[[data]]` tables of a config: which format, which file, which levels. Reads files through `files`.

PRM800K, Math-Shepherd and MetaMATH do not tell the level of a problem. `levels` needs `levels_file` there: MATH itself
(`problem`, `level`), where the problem is looked up by its text. Problems that are not in it are left out unless
`unknown_levels` keeps them (Sun et al. keep the problems of PRM800K that are not in MATH, and all of GSM8K).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.contracts import EvaluationProblem, NonBlank
from training.data import lab, math_shepherd, metamath, own, prm800k
from training.data.files import Row, rows, text_of
from training.data.records import DataError, Demonstration, LabelledSolution
from training.recipes.config import Part, Seed

Levels = Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=1)]
Record = LabelledSolution | Demonstration | EvaluationProblem
_LEVEL = re.compile(r"(?:Level )?([1-5])")
_READERS: dict[str, Callable[[str, Row], Iterator[Record]]] = {
    "prm800k": prm800k.read,
    "math-shepherd": math_shepherd.read,
    "metamath": metamath.read,
    "labelled": own.read_labelled,
    "outcomes": own.read_outcome,
    "demonstrations": own.read_demonstration,
    "problems": own.read_problem,
}
_WITHOUT_LEVELS = ("prm800k", "math-shepherd", "metamath")


class FileSource(Part):
    """A file, a pattern of files, or a hub data set; `limit` counts records that are left after the levels."""

    format: Literal["prm800k", "math-shepherd", "metamath", "labelled", "outcomes", "demonstrations", "problems"]
    path: NonBlank
    split: NonBlank | None = None
    levels: Levels | None = None
    levels_file: NonBlank | None = None
    unknown_levels: bool = False
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _levels_are_known(self) -> Self:
        needs = self.format in _WITHOUT_LEVELS
        if (self.levels is not None and needs) != (self.levels_file is not None):
            raise PydanticCustomError("levels", "levels and levels_file go together in this format, and only in it")
        if self.unknown_levels and self.levels is None:
            raise PydanticCustomError("levels", "unknown_levels says nothing without levels")
        return self


class LabSource(Part):
    """Training problems of the lab; `corrupted` solutions with errors put in beside the right one (reward alone)."""

    format: Literal["lab"]
    levels: Levels = Field(default_factory=lambda: [1, 2, 3])
    count: int = Field(ge=1)
    seed: Seed = 0
    corrupted: int = Field(default=0, ge=0)


Source = Annotated[FileSource | LabSource, Field(discriminator="format")]


def labelled(sources: Sequence[FileSource | LabSource]) -> list[LabelledSolution]:
    """Labelled solutions of every source, in order. Raises `DataError`."""
    return [
        one
        for source in sources
        for one in _checked(
            _lab_labelled(source) if isinstance(source, LabSource) else _records(source), LabelledSolution, source
        )
    ]


def demonstrations(sources: Sequence[FileSource | LabSource]) -> list[Demonstration]:
    """Demonstrations of every source, and the right ones among labelled solutions. Raises `DataError`."""
    found: list[Demonstration] = []
    for source in sources:
        records: Iterable[Record]
        if isinstance(source, LabSource):
            records = map(lab.as_demonstration, lab.lab_problems(source.levels, source.count, source.seed))
        else:
            records = _records(source)
        found += _checked(filter(None, map(_to_learn_from, records)), Demonstration, source)
    return found


def problems(sources: Sequence[FileSource | LabSource]) -> list[EvaluationProblem]:
    """Problems to sample, each id once. Raises `DataError`."""
    found: dict[str, EvaluationProblem] = {}
    for source in sources:
        records: Iterable[Record]
        if isinstance(source, LabSource):
            records = map(lab.as_problem, lab.lab_problems(source.levels, source.count, source.seed))
        else:
            records = _records(source)
        for one in _checked(records, EvaluationProblem, source):
            found.setdefault(one.id, one)
    return list(found.values())


def _checked(records: Iterable[Any], kind: type[Any], source: FileSource | LabSource) -> list[Any]:
    found = []
    for record in records:
        if not isinstance(record, kind):
            raise DataError(f"format {source.format} is not what this recipe learns from")
        found.append(record)
    if not found:
        raise DataError(f"a source of format {source.format} holds nothing that can be used")
    return found


def _to_learn_from(record: Record) -> Record | None:
    if not isinstance(record, LabelledSolution):
        return record
    if not record.right:
        return None
    return Demonstration(problem=record.problem, solution=record.solution, level=record.level)


def _lab_labelled(source: LabSource) -> Iterator[LabelledSolution]:
    chosen = lab.lab_problems(source.levels, source.count, source.seed)
    return chain.from_iterable(lab.with_corruptions(one, source.corrupted, source.seed) for one in chosen)


def _records(source: FileSource) -> Iterator[Record]:
    return islice(_at_levels(source), source.limit)


def _at_levels(source: FileSource) -> Iterator[Record]:
    read = _READERS[source.format]
    for place, row in rows(source.path, source.split):
        for record in read(place, row):
            level = _level(source, record, row)
            if source.levels is None:
                yield record
            elif level in source.levels or (level is None and source.unknown_levels):
                yield record if level is None else record.model_copy(update={"level": level})


def _level(source: FileSource, record: Record, row: Row) -> int | None:
    if source.levels_file is None:
        return record.level
    problem = metamath.original_problem(row) if source.format == "metamath" else record.problem
    return None if problem is None else _levels_of(source.levels_file).get(" ".join(problem.split()))


@lru_cache(maxsize=4)
def _levels_of(path: str) -> dict[str, int]:
    """Problem text, its blanks made equal, to level."""
    found: dict[str, int] = {}
    for place, row in rows(path):
        problem = text_of(place, row, "problem" if "problem" in row else "question")
        match = _LEVEL.fullmatch(str(row.get("level")))
        if match is not None:
            found[" ".join(problem.split())] = int(match[1])
    return found

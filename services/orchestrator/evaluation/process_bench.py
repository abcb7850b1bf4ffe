"""Solutions with their first error labelled, in ProcessBench's columns, and how well a verifier finds it.

Columns `problem`, `steps`, `label` (index of the first wrong step, -1 where none is), perhaps `id` and `split`
(Zheng et al., 2024, arXiv 2412.06559; Qwen/ProcessBench); others are ignored. Reading blocks: call it from a thread.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from services.core.contracts import MAX_STEPS
from services.core.contracts.base import NonBlank, Problem, Wire
from services.core.contracts.evaluation import MAX_ITEMS
from services.core.contracts.scoring import VerifierKind
from services.core.errors import InvalidRequest, TooManyItems
from services.orchestrator.evaluation.files import read_rows
from services.orchestrator.evaluation.findings import rounded
from services.orchestrator.evaluation.quality import LabelledSteps, best_threshold, first_errors, step_auroc
from services.runtime.faults import invalid_request

ALL = "all"


class LabelledSolution(BaseModel):
    """One row. `label` is the index of the first wrong step, or -1."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: str | int | None = None
    split: NonBlank | None = None
    problem: Problem
    steps: Annotated[list[NonBlank], Field(min_length=1, max_length=MAX_STEPS)]
    label: Annotated[int, Field(ge=-1)]

    @model_validator(mode="after")
    def _label_is_a_step(self) -> Self:
        if self.label >= len(self.steps):
            raise PydanticCustomError("invalid_body", "the label is not the index of a step")
        return self


class StepQuality(Wire):
    """Of one split: accuracies on erroneous and on correct solutions, their harmonic mean, and the AUROC of steps.

    Null where there is nothing to measure. An unscored solution counts as not found, and not in the AUROC.
    """

    split: str
    solutions: int
    erroneous: int
    unscored: int
    accuracy_erroneous: float | None
    accuracy_correct: float | None
    f1: float | None
    step_auroc: float | None


class ProcessQuality(Wire):
    """What `e2h process-bench --json` prints. `mean_f1` is over splits, the number that the paper ranks by.

    A step under `threshold` is an error; `tuned_on` names the split on which it was chosen, null where it was given.
    """

    model: str
    kind: VerifierKind
    threshold: float
    tuned_on: str | None
    mean_f1: float | None
    splits: list[StepQuality]


def read_solutions(url: str) -> list[LabelledSolution]:
    """The rows of a JSONL or Parquet file (`.parquet`), all or nothing.

    Raises `NotFound`, `InvalidRequest` that names the first line (or row) that is none, `TooManyItems`.
    """
    solutions = [_checked(row, place) for place, row in read_rows(url, "file")]
    if not solutions:
        raise InvalidRequest("the file holds no solution")
    if len(solutions) > MAX_ITEMS:
        raise TooManyItems(f"the file holds more than {MAX_ITEMS} solutions")
    return solutions


def _checked(row: Any, place: str) -> LabelledSolution:
    try:
        return LabelledSolution.model_validate(row)
    except ValidationError as error:
        raise InvalidRequest(f"{place}: {invalid_request(error).message}") from None


def process_quality(
    solutions: Sequence[LabelledSolution],
    scores: Sequence[tuple[float, ...] | None],
    model: str,
    kind: VerifierKind,
    *,
    threshold: float,
    tune_on: str | None = None,
) -> ProcessQuality:
    """The quality of step scores, in the order of `solutions`: of each split and of all.

    With `tune_on` the threshold is the one of the highest F1 on that split. Raises `InvalidRequest` when there is no
    such split, or only one kind of solution in it.
    """
    labelled = [LabelledSteps(s, solution.label) for s, solution in zip(scores, solutions, strict=True)]
    splits = {ALL: labelled, **_by_split(solutions, labelled)}
    if tune_on is not None:
        threshold = _tuned(splits, tune_on)
    found = [_of_split(name, members, threshold) for name, members in splits.items()]
    f1s = [quality.f1 for quality in found if quality.split != ALL]
    known = [f1 for f1 in f1s if f1 is not None]
    return ProcessQuality(
        model=model,
        kind=kind,
        threshold=threshold,
        tuned_on=tune_on,
        mean_f1=rounded(sum(known) / len(known)) if known and len(known) == len(f1s) else None,
        splits=found,
    )


def _by_split(
    solutions: Sequence[LabelledSolution], labelled: Sequence[LabelledSteps]
) -> dict[str, list[LabelledSteps]]:
    splits: dict[str, list[LabelledSteps]] = {}
    for solution, steps in zip(solutions, labelled, strict=True):
        if solution.split is not None:
            splits.setdefault(solution.split, []).append(steps)
    return splits


def _tuned(splits: dict[str, list[LabelledSteps]], name: str) -> float:
    if name not in splits:
        raise InvalidRequest("there is no split of that name to choose the threshold on", param="tune_on")
    threshold = best_threshold(splits[name])
    if threshold is None:
        raise InvalidRequest("a threshold is chosen on erroneous and correct solutions; one kind is missing there")
    return threshold


def _of_split(name: str, labelled: Sequence[LabelledSteps], threshold: float) -> StepQuality:
    found, area = first_errors(labelled, threshold), step_auroc(labelled)
    return StepQuality(
        split=name,
        solutions=len(labelled),
        erroneous=sum(steps.label >= 0 for steps in labelled),
        unscored=sum(steps.scores is None for steps in labelled),
        accuracy_erroneous=_rounded(found.erroneous),
        accuracy_correct=_rounded(found.correct),
        f1=_rounded(found.f1),
        step_auroc=_rounded(area),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else rounded(value)

"""Labelled solutions as the reward model sees them: ids, and a label at chosen rows. Pure: no torch, no model.

Ids and rows are those of the verifier service's own family, so a label stands where a score will be read. A step's
label stands at its read-out row and, as the paper has it, on the step's tokens before that: on all of them, or on the
last few. The outcome's label stands at the end of the sequence alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from services.core.contracts import VerifierKind
from services.core.errors import InvalidRequest
from services.core.pieces import easy_to_hard_prompt
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded
from services.verifier.families.easy_to_hard import EasyToHard, EosReadout
from services.verifier.families.token_classification import DEFAULT_AGGREGATION, TokenClassification
from training.data.records import LabelledSolution

FamilyName = Literal["easy-to-hard", "token-classification"]
NO_LABEL = -100.0  # Trainer counts the labels that are not -100


class Trainable(Protocol):
    """A family, and where its steps begin."""

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """The family's own ids and rows."""
        ...

    def step_starts(self, problem: str, rows: Sequence[int]) -> list[int]:
        """The row of the first token of each step whose read-out rows are `rows`."""
        ...


class TrainableEasyToHard(EasyToHard):
    """Family easy-to-hard: a step follows the second newline of the pair before it."""

    def step_starts(self, problem: str, rows: Sequence[int]) -> list[int]:
        first = len(easy_to_hard_prompt(self._encoder, self._bos_id, problem))
        return [first, *(row + 2 for row in rows[:-1])]


class TrainableTokenClassification(TokenClassification):
    """Family token-classification: a step follows the separator before it."""

    def step_starts(self, problem: str, rows: Sequence[int]) -> list[int]:
        first = len(self._bos) + len(self._encoder.first(problem.strip()))
        return [first, *(row + 1 for row in rows[:-1])]


def trainable_family(
    tokenizer: Any, name: FamilyName, kind: VerifierKind, *, eos_readout: EosReadout = "at", separator: str = "\n"
) -> Trainable:
    """The family to train for. `token-classification` has step scores alone (`ValueError` for other kinds)."""
    encoder = PlainEncoder(tokenizer)
    if name == "easy-to-hard":
        return TrainableEasyToHard(
            encoder,
            bos_id=tokenizer.bos_token_id,
            eos_id=tokenizer.eos_token_id,
            kind=kind,
            eos_readout=eos_readout,
        )
    if kind != "prm":
        raise ValueError("family token-classification has no outcome score: train it with kind prm")
    return TrainableTokenClassification(
        encoder, bos_id=tokenizer.bos_token_id, separator=separator, default_aggregation=DEFAULT_AGGREGATION
    )


@dataclass(frozen=True)
class Labelled:
    """One training sequence: `labels` has one entry a token, `NO_LABEL` where there is none; `weights` likewise."""

    ids: list[int]
    labels: list[float]
    weights: list[float]


def encode_labelled(
    family: Trainable, solution: LabelledSolution, *, label_tokens: int | None, outcome_weight: float
) -> Labelled | None:
    """The sequence with its labels; None when the family's kind reads none of them, or it has no step to read.

    `label_tokens` is the number of tokens of a step that carry its label, counted back from the read-out row
    (None: all of the step). An `outcome_weight` of 2 counts an outcome as two tokens.
    """
    try:
        encoded = family.encode(solution.problem, solution.steps)
    except InvalidRequest:
        return None
    labels, weights = [NO_LABEL] * len(encoded.ids), [1.0] * len(encoded.ids)
    if encoded.step_rows:
        starts = family.step_starts(solution.problem, encoded.step_rows)
        for start, row, label in zip(starts, encoded.step_rows, solution.labels, strict=True):
            if label is not None:
                first = start if label_tokens is None else max(start, row + 1 - label_tokens)
                labels[first : row + 1] = [label] * (row + 1 - first)
    if encoded.outcome_row is not None and solution.outcome is not None:
        labels[encoded.outcome_row] = solution.outcome
        weights[encoded.outcome_row] = outcome_weight
    if all(label == NO_LABEL for label in labels):
        return None
    return Labelled(list(encoded.ids), labels, weights)

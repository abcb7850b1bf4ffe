"""A reward model ready to score: body, head and family of one checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from services.core.contracts import VerifierInfo
from services.verifier.families.base import Encoded, Family
from services.verifier.forward import forward
from services.verifier.head import Head


@dataclass(frozen=True, slots=True)
class RawScores:
    """Probabilities of one solution as the model gave them; may hold NaN, which the caller must refuse."""

    steps: tuple[float, ...]
    outcome: float | None


class RewardModel:
    """Scores batches of encoded solutions. Blocking: call it from a worker thread."""

    def __init__(self, body: torch.nn.Module, head: Head, family: Family, pad_id: int, info: VerifierInfo) -> None:
        self.body = body
        self.head = head
        self.family = family
        self.pad_id = pad_id
        self.info = info

    @property
    def context_length(self) -> int:
        return self.info.context_length or 0

    def score(self, batch: Sequence[Encoded]) -> list[RawScores]:
        """Scores of each solution, in order."""
        values = forward(self.body, self.head, batch, self.pad_id)
        return [_raw(encoded, found.tolist()) for encoded, found in zip(batch, values, strict=True)]


def _raw(encoded: Encoded, probabilities: list[float]) -> RawScores:
    count = len(encoded.step_rows)
    return RawScores(tuple(probabilities[:count]), None if encoded.outcome_row is None else probabilities[-1])

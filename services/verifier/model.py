"""A reward model ready to score: engine and family of one checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.core.contracts import VerifierInfo
from services.verifier.engine import RowScores, TrieEngine
from services.verifier.families.base import Encoded, Family
from services.verifier.forward import plain_forward
from services.verifier.head import Head


@dataclass(frozen=True, slots=True)
class RawScores:
    """Probabilities of one solution as the model gave them; may hold NaN, which the caller must refuse.

    `computed` counts its tokens that went through the model, as in `RowScores`.
    """

    steps: tuple[float, ...]
    outcome: float | None
    computed: int = 0


class RewardModel:
    """Scores batches of encoded solutions. Blocking: call it from a worker thread."""

    def __init__(self, body: Any, head: Head, family: Family, info: VerifierInfo, *, cache_bytes: int = 0) -> None:
        """`cache_bytes` bounds what is kept of prefixes across calls. Raises `ModelLoadError`."""
        self.body = body
        self.head = head
        self.family = family
        self.info = info
        self.engine = TrieEngine(body, head, cache_bytes)

    @property
    def context_length(self) -> int:
        return self.info.context_length or 0

    @property
    def device_type(self) -> str:
        """cpu or cuda."""
        return self.head.device.type

    @property
    def cached_bytes(self) -> int:
        """Bytes of keys and values that are kept of prefixes."""
        return self.engine.cached_bytes

    def forget(self) -> None:
        """Drop what is kept of prefixes, for the memory."""
        self.engine.forget()

    def score(self, batch: Sequence[Encoded]) -> list[RawScores]:
        """Scores of each solution, in order. Raises `DeviceOutOfMemory`."""
        found = self.engine.score(batch)
        return [_raw(encoded, rows) for encoded, rows in zip(batch, found, strict=True)]

    def score_plainly(self, encoded: Encoded) -> RawScores:
        """The scores of one solution by a forward pass without any of the engine, for comparison."""
        values = tuple(plain_forward(self.body, self.head, encoded).tolist())
        return _raw(encoded, RowScores(values, len(encoded.ids)))


def _raw(encoded: Encoded, rows: RowScores) -> RawScores:
    outcome = None if encoded.outcome_row is None else rows.values[-1]
    return RawScores(rows.values[: len(encoded.step_rows)], outcome, rows.computed)

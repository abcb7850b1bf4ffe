"""What a reward-model family is: input ids with known read-out rows, and the meaning of the head's values. No torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.core.errors import InvalidRequest, ModelLoadError
from services.runtime.tokens import PlainEncoder
from services.verifier.trie import key_of

RESERVED_TOKEN_FLAG = "reserved_token_in_input"  # noqa: S105 - a token of a vocabulary


@dataclass(frozen=True, slots=True)
class Encoded:
    """One solution ready for the model.

    `step_rows[k]` is the row (position in `ids`) at which the score of step k is read, `outcome_row` that of the
    whole solution; both are known by construction. Empty and None where the kind has no such score. `key` is that of
    `ids` in a trie, made once, where the solution is encoded.
    """

    ids: tuple[int, ...]
    step_rows: tuple[int, ...]
    outcome_row: int | None
    flags: tuple[str, ...] = ()
    key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of(self.ids))

    @property
    def rows(self) -> tuple[int, ...]:
        """All read-out rows: steps in order, then the outcome."""
        return self.step_rows if self.outcome_row is None else (*self.step_rows, self.outcome_row)


class Family(Protocol):
    """A reward-model family, bound to one checkpoint's tokenizer and kind."""

    name: str
    version: int
    kind: VerifierKind
    default_aggregation: Aggregation

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids and read-out rows. Raises `InvalidRequest` for a solution that the format cannot hold."""
        ...


def trimmed_steps(steps: Sequence[str]) -> list[str]:
    """The steps without blanks around them. Raises `InvalidRequest` when there is none, or a blank one."""
    trimmed = [step.strip() for step in steps]
    if not trimmed or not all(trimmed):
        raise InvalidRequest("a solution needs steps, and none of them blank", code="empty_step")
    return trimmed


def flags_of(encoder: PlainEncoder, texts: Iterable[str], tags: Sequence[str] = ()) -> tuple[str, ...]:
    """The flag of texts that spell an added token of the tokenizer, or one of the family's own `tags`."""
    named = any(encoder.names_reserved(text) or any(tag in text for tag in tags) for text in texts)
    return (RESERVED_TOKEN_FLAG,) if named else ()


def single_token(ids: list[int]) -> int:
    """The one id of an answer that must be one token. Raises `ModelLoadError`."""
    if len(ids) != 1:
        raise ModelLoadError(
            "the tokenizer has no single tokens for + and -", "put the reward model's own tokenizer beside it"
        )
    return ids[0]

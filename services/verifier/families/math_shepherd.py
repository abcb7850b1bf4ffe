"""Family math-shepherd: peiyi9979/math-shepherd-mistral-7b-prm (Wang et al., 2024). One score a step.

    <s>{q} {s_1} ки\\n{s_2} ки\\n...{s_K} ки

The score of a step is the softmax of the logits of `+` and `-` AT its tag, index 0 (the model card's usage). In the
published vocabulary the three tokens are `▁ки` 12902, `▁+` 648 and `▁-` 387. The tag is an ordinary entry of the
vocabulary: text that spells it is flagged, and encoded by its letters, so that the model sees a tag where a step
ends and nowhere else.

Default aggregation: `min`, as the paper ranks by.
"""

from collections.abc import Sequence
from typing import Any

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.core.errors import ModelLoadError
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded, flags_of, trimmed_steps
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.head import TOKEN_HEADS, Head, read_token_head

NAME = "math-shepherd"
DEFAULT_AGGREGATION = Aggregation.MIN
HEADS = TOKEN_HEADS
OUTPUTS = None  # the rows of two tokens
KINDS: tuple[VerifierKind, ...] = ("prm",)
_TAG = "ки"
_TAG_ENTRY, _RIGHT_ENTRY, _WRONG_ENTRY = "▁ки", "▁+", "▁-"


class MathShepherd:
    """Plain text with a tag of the vocabulary after each step."""

    name = NAME
    version = 1
    kind: VerifierKind = "prm"

    def __init__(self, encoder: PlainEncoder, *, bos_id: int | None, default_aggregation: Aggregation) -> None:
        self._encoder = encoder
        self._bos = [] if bos_id is None else [bos_id]
        self._tag_id = vocabulary_id(encoder, _TAG_ENTRY)
        self._spelled = [piece for letter in f" {_TAG}" for piece in encoder.after_newline(letter)]
        self.default_aggregation = default_aggregation

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids up to the last tag; a row at each tag."""
        ids = [*self._bos, *self._plain(self._encoder.first(problem.strip()))]
        rows = []
        for place, text in enumerate(trimmed_steps(steps)):
            # The first step follows the problem after a space, the others a newline.
            ids += [self._encoder.newline_id] if place else []
            ids += self._plain(self._encoder.after_newline(text if place else f" {text}"))
            rows.append(len(ids))
            ids.append(self._tag_id)
        return Encoded(tuple(ids), tuple(rows), None, flags_of(self._encoder, (problem, *steps), (_TAG,)))

    def _plain(self, ids: list[int]) -> list[int]:
        return [piece for one in ids for piece in (self._spelled if one == self._tag_id else [one])]


def vocabulary_id(encoder: PlainEncoder, entry: str) -> int:
    """The id of an entry of the vocabulary. Raises `ModelLoadError` where the tokenizer has none."""
    found = encoder.vocabulary_id(entry)
    if found is None:
        raise ModelLoadError(
            f"the tokenizer has no token {entry}, which family {NAME} needs",
            "put the reward model's own tokenizer beside it, or set E2H_VERIFIER_FAMILY to another family",
        )
    return found


def build(checkpoint: Checkpoint, tokenizer: Any) -> tuple[MathShepherd, Head]:
    """The family and the head (two rows of the language model's) of this checkpoint. Raises `ModelLoadError`."""
    kind = checkpoint.kind(KINDS)
    checkpoint.refuse_changed_logits()
    encoder = PlainEncoder(tokenizer)
    family = MathShepherd(
        encoder,
        bos_id=tokenizer.bos_token_id,
        default_aggregation=checkpoint.aggregation(kind, DEFAULT_AGGREGATION),
    )
    answers = [vocabulary_id(encoder, entry) for entry in (_RIGHT_ENTRY, _WRONG_ENTRY)]
    return family, read_token_head(checkpoint.tensors, answers, positive=0)

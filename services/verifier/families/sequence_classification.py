"""Family sequence-classification: outcome reward models, `*ForSequenceClassification` with one label. No step scores.

The solution is the assistant's turn of the checkpoint's chat template, or stands in the easy-to-hard format; the
outcome is the sigmoid of the label at the last token, where transformers' classes read it. A model trained on
preferences gives a number without a scale; its sigmoid keeps the order and makes a probability of it. The head is
`score` (Linear), or Linear, ReLU, Linear as in Qwen2.5-Math-RM-72B (`Qwen2ForRewardModel`).

The format is `e2h.prompt` or E2H_VERIFIER_PROMPT (chat, easy-to-hard); unsaid, it is chat where the tokenizer has a
template. Default aggregation: `outcome`, the only one there is.
"""

from collections.abc import Callable, Sequence
from typing import Any

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.core.errors import ModelLoadError
from services.core.steps import join_steps
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded, flags_of, trimmed_steps
from services.verifier.families.chat import STAND_INS, TemplateParts
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.families.easy_to_hard import EasyToHard
from services.verifier.head import Head, read_head

NAME = "sequence-classification"
DEFAULT_AGGREGATION = Aggregation.OUTCOME
KINDS: tuple[VerifierKind, ...] = ("orm",)
HEADS = (("score",), ("score.0", "score.2"), ("classifier",))
OUTPUTS = (1,)
PROMPTS = ("chat", "easy-to-hard")


class SequenceClassification:
    """One outcome at the last token."""

    name = NAME
    version = 1
    kind: VerifierKind = "orm"
    default_aggregation = DEFAULT_AGGREGATION

    def __init__(self, encoder: PlainEncoder, write: Callable[[str, Sequence[str]], Sequence[int]]) -> None:
        """`write` makes the ids of problem and steps."""
        self._encoder = encoder
        self._write = write

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids of the whole solution; one row, the last."""
        ids = tuple(self._write(problem.strip(), trimmed_steps(steps)))
        return Encoded(ids, (), len(ids) - 1, flags_of(self._encoder, (problem, *steps)))


def build(checkpoint: Checkpoint, tokenizer: Any) -> tuple[SequenceClassification, Head]:
    """The family and the head of this checkpoint. Raises `ModelLoadError`."""
    checkpoint.kind(KINDS)
    encoder = PlainEncoder(tokenizer)
    has_template = bool(getattr(tokenizer, "chat_template", None))
    prompt = checkpoint.choice("prompt", checkpoint.settings.prompt, PROMPTS, "chat" if has_template else None)
    if prompt is None or (prompt == "chat" and not has_template):
        raise ModelLoadError(
            "the tokenizer has no chat template to write solutions in",
            "set E2H_VERIFIER_PROMPT=easy-to-hard if it was trained on that format, or add the template",
        )
    write = _chat_writer(tokenizer, encoder) if prompt == "chat" else _plain_writer(tokenizer, encoder)
    return SequenceClassification(encoder, write), read_head(checkpoint.tensors, HEADS, OUTPUTS)


def _chat_writer(tokenizer: Any, encoder: PlainEncoder) -> Callable[[str, Sequence[str]], Sequence[int]]:
    question, answer = STAND_INS
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    parts = TemplateParts(tokenizer, encoder, turns, False)
    return lambda problem, steps: parts.ids(problem, join_steps(steps))


def _plain_writer(tokenizer: Any, encoder: PlainEncoder) -> Callable[[str, Sequence[str]], Sequence[int]]:
    if tokenizer.eos_token_id is None:
        raise ModelLoadError("the verifier's tokenizer has no end-of-sequence token", "set eos_token in its config")
    written = EasyToHard(encoder, bos_id=tokenizer.bos_token_id, eos_id=tokenizer.eos_token_id, kind="orm")
    return lambda problem, steps: written.encode(problem, steps).ids

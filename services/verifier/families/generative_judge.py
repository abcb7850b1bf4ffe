"""Family generative-judge: any causal language model asked for a verdict. One outcome, no step scores.

The model reads a rubric with problem and solution and would answer `+` or `-`; the outcome is the softmax over the
two tokens' logits at that one position, index `+`. Nothing is sampled or parsed, so there is no answer to misread.
A model with a chat template is asked in it, with the generation prompt; one without continues the plain rubric.

This is the weakest family: an untrained judge. Default aggregation: `outcome`, the only one there is.
"""

from collections.abc import Sequence
from typing import Any

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.core.steps import join_steps
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded, flags_of, single_token, trimmed_steps
from services.verifier.families.chat import STAND_INS, TemplateParts
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.head import TOKEN_HEADS, Head, read_token_head

NAME = "generative-judge"
DEFAULT_AGGREGATION = Aggregation.OUTCOME
HEADS = TOKEN_HEADS
OUTPUTS = None  # the rows of two tokens
KINDS: tuple[VerifierKind, ...] = ("orm",)
_RUBRIC = (
    "Judge whether the solution of this math problem is right. It is right only if every step follows and the final "
    "answer is the answer of the problem. Reply with + if it is right, with - if it is not, and with nothing else."
)
_PROBLEM, _SOLUTION, _VERDICT = "\n\n# Problem\n\n", "\n\n# Solution\n\n", "\n\n# Verdict\n\n"


class GenerativeJudge:
    """A rubric, then one token."""

    name = NAME
    version = 1
    kind: VerifierKind = "orm"
    default_aggregation = DEFAULT_AGGREGATION

    def __init__(self, encoder: PlainEncoder, *, bos_id: int | None, chat: TemplateParts | None) -> None:
        """`chat` is the template's rendering of the rubric; None asks in plain text."""
        self._encoder = encoder
        self._bos = [] if bos_id is None else [bos_id]
        self._chat = chat

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids of the question; one row, the last, where the model would write its verdict."""
        write = self._plain if self._chat is None else self._chat.ids
        ids = tuple(write(problem.strip(), join_steps(trimmed_steps(steps))))
        return Encoded(ids, (), len(ids) - 1, flags_of(self._encoder, (problem, *steps)))

    def answer_ids(self) -> tuple[int, int]:
        """The tokens of `+` and `-` where the verdict would stand."""
        after_newline = self._chat is None or self._chat.ends_in_newline
        encode = self._encoder.after_newline if after_newline else self._encoder.first
        return single_token(encode("+")), single_token(encode("-"))

    def _plain(self, problem: str, solution: str) -> list[int]:
        ids = [*self._bos, *self._encoder.first(_RUBRIC + _PROBLEM)]
        for text in (problem, _SOLUTION, solution, _VERDICT):
            ids += self._encoder.after_newline(text)
        return ids


def build(checkpoint: Checkpoint, tokenizer: Any) -> tuple[GenerativeJudge, Head]:
    """The family and the head (two rows of the language model's) of this checkpoint. Raises `ModelLoadError`."""
    checkpoint.kind(KINDS)
    checkpoint.refuse_changed_logits()
    encoder = PlainEncoder(tokenizer)
    chat = None
    if getattr(tokenizer, "chat_template", None):
        problem, solution = STAND_INS
        asked = f"{_RUBRIC}{_PROBLEM}{problem}{_SOLUTION}{solution}"
        chat = TemplateParts(tokenizer, encoder, [{"role": "user", "content": asked}], True)
    family = GenerativeJudge(encoder, bos_id=tokenizer.bos_token_id, chat=chat)
    return family, read_token_head(checkpoint.tensors, family.answer_ids(), positive=0)

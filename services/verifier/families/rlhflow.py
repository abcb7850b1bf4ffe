"""Family rlhflow: RLHFlow/Llama3.1-8B-PRM-Mistral-Data and -Deepseek-Data (Xiong et al., 2024). One score a step.

A conversation in Llama 3.1's chat format: the user writes `{q} {s_1}`, the assistant `+`, the user s_2, the assistant
`+`, and so on. The score of a step is the softmax of the logits of `+` and `-` at the position BEFORE the assistant's
token, index 0. The published code (RLHFlow/RLHF-Reward-Modeling, math-rm/prm_evaluate.py) runs the model once a step
and reads position -3 of `apply_chat_template`'s ids, which end in `+` and `<|eot_id|>`; under causal attention one
pass over the whole conversation gives the same numbers. The last `+` can change no score and is left out.

`apply_chat_template` puts Llama 3.1's system turn before the conversation, with its two dates ("Cutting Knowledge
Date: December 2023", "Today Date: 26 Jul 2024"). They are reproduced from the checkpoint's own template, with that
date whatever the day is; a tokenizer without a template gets the same text; `e2h.system_prompt` says otherwise.

Default aggregation: `mean`, as prm_evaluate.py ranks by.
"""

from collections.abc import Sequence
from typing import Any

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded, flags_of, single_token, trimmed_steps
from services.verifier.families.chat import LLAMA_3, TEMPLATE_DATE, ChatPieces, system_of
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.head import TOKEN_HEADS, Head, read_token_head

NAME = "rlhflow"
DEFAULT_AGGREGATION = Aggregation.MEAN
HEADS = TOKEN_HEADS
OUTPUTS = None  # the rows of two tokens
KINDS: tuple[VerifierKind, ...] = ("prm",)
LLAMA_SYSTEM = f"Cutting Knowledge Date: December 2023\nToday Date: {TEMPLATE_DATE}\n\n"


class RlhFlow:
    """A conversation in which the assistant judges each step by one token."""

    name = NAME
    version = 1
    kind: VerifierKind = "prm"

    def __init__(
        self, encoder: PlainEncoder, *, system: str | None, right_id: int, default_aggregation: Aggregation
    ) -> None:
        pieces = ChatPieces(LLAMA_3, encoder)
        self._encoder = encoder
        self._beginning = pieces.beginning(system)
        self._user = pieces.header("user")
        self._asked = [*pieces.end, *pieces.header("assistant")]
        self._judged = [right_id, *pieces.end]
        self.default_aggregation = default_aggregation

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids up to the last verdict; a row at the token before each verdict."""
        ids = [*self._beginning, *self._user, *self._encoder.after_newline(problem.strip())]
        rows = []
        for place, text in enumerate(trimmed_steps(steps)):
            ids += self._judged + self._user if place else []
            ids += self._encoder.first(text if place else f" {text}")
            ids += self._asked
            rows.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(rows), None, flags_of(self._encoder, (problem, *steps)))


def build(checkpoint: Checkpoint, tokenizer: Any) -> tuple[RlhFlow, Head]:
    """The family and the head (two rows of the language model's) of this checkpoint. Raises `ModelLoadError`."""
    kind = checkpoint.kind(KINDS)
    checkpoint.refuse_changed_logits()
    encoder = PlainEncoder(tokenizer)
    right, wrong = (single_token(encoder.after_newline(answer)) for answer in "+-")
    system = (
        checkpoint.text("system_prompt")
        if "system_prompt" in checkpoint.own
        else system_of(tokenizer, LLAMA_3, LLAMA_SYSTEM)
    )
    family = RlhFlow(
        encoder,
        system=system,
        right_id=right,
        default_aggregation=checkpoint.aggregation(kind, DEFAULT_AGGREGATION),
    )
    return family, read_token_head(checkpoint.tensors, (right, wrong), positive=0)

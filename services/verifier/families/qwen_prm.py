"""Family qwen-prm: Qwen2.5-Math-PRM-7B and -72B, Qwen2.5-Math-7B-PRM800K, ReasonFlux-PRM. One score a step.

    <|im_start|>system\\n{system}<|im_end|>\\n<|im_start|>user\\n{q}<|im_end|>\\n<|im_start|>assistant\\n
    {s_1}<extra_0>{s_2}<extra_0>...{s_K}<extra_0>

The score of a step is the softmax of the head's two labels, index 1, at its `<extra_0>` (the model cards' usage; the
head is Linear, ReLU, Linear). What the template writes after the last tag can change no score and is left out.

Which system text: `e2h.system_prompt` of the config where there is one; else what the checkpoint's own chat template
writes before a conversation without a system turn. For Qwen's models that is the text that their cards pass ("Please
reason step by step, ..."); ReasonFlux-PRM is used without a system turn, so its template's word is its word as well.

Default aggregation: `prod`, as Zhang et al. (2025, "The Lessons of Developing PRMs in Mathematical Reasoning") rank by.
"""

from collections.abc import Sequence
from typing import Any

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded, flags_of, trimmed_steps
from services.verifier.families.chat import CHATML, ChatPieces, required_control, system_of
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.head import Head, read_head

NAME = "qwen-prm"
DEFAULT_AGGREGATION = Aggregation.PROD
KINDS: tuple[VerifierKind, ...] = ("prm",)
HEADS = (("score.0", "score.2"),)
OUTPUTS = (2,)
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_TAG = "<extra_0>"
_RIGHT = 1


class QwenPrm:
    """ChatML with a tag after each step."""

    name = NAME
    version = 1
    kind: VerifierKind = "prm"

    def __init__(self, encoder: PlainEncoder, *, system: str | None, default_aggregation: Aggregation) -> None:
        pieces = ChatPieces(CHATML, encoder)
        self._encoder = encoder
        self._tag_id = required_control(encoder, _TAG)
        self._before_problem = [*pieces.beginning(system), *pieces.header("user")]
        self._after_problem = [*pieces.end, *pieces.header("assistant")]
        self.default_aggregation = default_aggregation

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids up to the last tag; a row at each tag."""
        texts = trimmed_steps(steps)
        ids = [*self._before_problem, *self._encoder.after_newline(problem.strip()), *self._after_problem]
        rows = []
        for text in texts:
            ids += self._encoder.first(text)
            rows.append(len(ids))
            ids.append(self._tag_id)
        return Encoded(tuple(ids), tuple(rows), None, flags_of(self._encoder, (problem, *steps)))


def build(checkpoint: Checkpoint, tokenizer: Any) -> tuple[QwenPrm, Head]:
    """The family and the head of this checkpoint. Raises `ModelLoadError`."""
    kind = checkpoint.kind(KINDS)
    system = (
        checkpoint.text("system_prompt")
        if "system_prompt" in checkpoint.own
        else system_of(tokenizer, CHATML, QWEN_SYSTEM)
    )
    family = QwenPrm(
        PlainEncoder(tokenizer),
        system=system,
        default_aggregation=checkpoint.aggregation(kind, DEFAULT_AGGREGATION),
    )
    return family, read_head(checkpoint.tensors, HEADS, OUTPUTS, positive=_RIGHT)

"""Family token-classification: any `*ForTokenClassification` trained on one label a step. One score a step.

    ids = [bos] ++ encode(q) ++ encode(s_1) ++ separator ++ encode(s_2) ++ separator ++ ...

The label of a step stands at the last token of the separator after it; nothing stands between problem and first step.
This is what TRL's PRMTrainer does (`tokenize_row`), with the separator "\\n" unless `e2h.separator` or
E2H_VERIFIER_SEPARATOR says another. Two labels: softmax, index 1; one label: sigmoid.

Default aggregation: `prod` (Lightman et al., 2023), for want of a published rule.
"""

from collections.abc import Sequence
from typing import Any

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.core.errors import ModelLoadError
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded, flags_of, trimmed_steps
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.head import Head, read_head

NAME = "token-classification"
DEFAULT_AGGREGATION = Aggregation.PROD
KINDS: tuple[VerifierKind, ...] = ("prm",)
DEFAULT_SEPARATOR = "\n"
# Where transformers' classes keep the head (Llama, Qwen2, Mistral; GPT-2, GPT-NeoX).
HEADS = (("score",), ("classifier",))
OUTPUTS = (1, 2)
_RIGHT = 1


class TokenClassification:
    """Prompt and steps, a separator after each step."""

    name = NAME
    version = 1
    kind: VerifierKind = "prm"

    def __init__(
        self, encoder: PlainEncoder, *, bos_id: int | None, separator: str, default_aggregation: Aggregation
    ) -> None:
        self._encoder = encoder
        self._bos = [] if bos_id is None else [bos_id]
        control = encoder.control_id(separator)
        self._separator = encoder.first(separator) if control is None else [control]
        if not self._separator:
            raise ModelLoadError("the step separator is no token at all", "set E2H_VERIFIER_SEPARATOR to another")
        # A separator of blanks is in many honest steps, and positions do not depend on it.
        self._tags = (separator,) if separator.strip() else ()
        self.default_aggregation = default_aggregation

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids up to the last separator; a row at the last token of each separator."""
        ids = [*self._bos, *self._encoder.first(problem.strip())]
        rows = []
        for text in trimmed_steps(steps):
            ids += [*self._encoder.first(text), *self._separator]
            rows.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(rows), None, flags_of(self._encoder, (problem, *steps), self._tags))


def build(checkpoint: Checkpoint, tokenizer: Any) -> tuple[TokenClassification, Head]:
    """The family and the head of this checkpoint. Raises `ModelLoadError`."""
    kind = checkpoint.kind(KINDS)
    family = TokenClassification(
        PlainEncoder(tokenizer),
        bos_id=tokenizer.bos_token_id,
        separator=checkpoint.settings.separator or checkpoint.text("separator") or DEFAULT_SEPARATOR,
        default_aggregation=checkpoint.aggregation(kind, DEFAULT_AGGREGATION),
    )
    return family, read_head(checkpoint.tensors, HEADS, OUTPUTS, positive=_RIGHT)

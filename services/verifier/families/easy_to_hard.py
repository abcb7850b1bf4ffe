"""Family easy-to-hard: PRM, ORM and OPRM of Sun et al. (2024), and the demo verifier. Pure: ids in, ids out.

    <s># Question\\n\\n{q}\\n\\n# Solution\\n\\n{s_1}\\n\\n ... {s_K}\\n\\n# Answer\\n\\n{answer}</s>

The score of a step stands at the first newline token of the pair after it; the pairs after `# Solution` and
`# Answer` are no steps. The outcome stands at EOS, or at the token before it (`eos_readout`). The head gives one
logit a row: the mean of the two rows that were trained (see `head.collapse`).

Default aggregation: `prod`, as the paper ranks by (section 4.2); `outcome` for an ORM.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.core.errors import InvalidRequest, ModelLoadError
from services.core.pieces import blank_line, easy_to_hard_prompt
from services.core.steps import ANSWER_HEADER, split_answer_block
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded, flags_of
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.head import Head, collapsed_head

NAME = "easy-to-hard"
DEFAULT_AGGREGATION = Aggregation.PROD
KINDS: tuple[VerifierKind, ...] = get_args(VerifierKind)
EosReadout = Literal["at", "before"]
# Where our own and the published checkpoints keep the reward head.
HEADS = (("score",), ("lm_head",))
OUTPUTS = None  # any even number: the tiling of two rows


class EasyToHard:
    """The easy-to-hard format over one tokenizer."""

    name = NAME
    version = 1

    def __init__(
        self,
        encoder: PlainEncoder,
        *,
        bos_id: int | None,
        eos_id: int,
        kind: VerifierKind,
        eos_readout: EosReadout = "at",
        default_aggregation: Aggregation | None = None,
    ) -> None:
        self._encoder = encoder
        self._bos_id = bos_id
        self._eos_id = eos_id
        self._eos_readout = eos_readout
        self.kind: VerifierKind = kind
        self.default_aggregation = default_aggregation or (
            Aggregation.OUTCOME if kind == "orm" else DEFAULT_AGGREGATION
        )

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids of the whole solution; one row a step (prm, oprm) and one for the outcome (orm, oprm).

        The answer block may stand at the end of the last step, where `split_steps` leaves it. Raises
        `InvalidRequest` when a step has no reasoning in it.
        """
        if not steps:
            raise InvalidRequest("the solution has no step", code="empty_step")
        *before, last = steps
        reasoning, block = split_answer_block(last)
        if not reasoning and self.kind != "orm":
            raise InvalidRequest("the last step is nothing but the answer block", code="empty_step")
        ids = easy_to_hard_prompt(self._encoder, self._bos_id, problem)
        rows = []
        for step in (*before, *([reasoning] if reasoning else [])):
            ids += self._encoder.after_newline(step.strip())
            rows.append(len(ids))
            ids += blank_line(self._encoder)
        ids += self._answer(block)
        ids.append(self._eos_id)
        outcome = len(ids) - (1 if self._eos_readout == "at" else 2)
        return Encoded(
            ids=tuple(ids),
            step_rows=() if self.kind == "orm" else tuple(rows),
            outcome_row=None if self.kind == "prm" else outcome,
            flags=flags_of(self._encoder, (problem, *steps)),
        )

    def _answer(self, block: str | None) -> list[int]:
        if block is None:
            return []
        answer = block.removeprefix(ANSWER_HEADER).strip()
        return [
            *self._encoder.after_newline(ANSWER_HEADER),
            *blank_line(self._encoder),
            *self._encoder.after_newline(answer),
        ]


def build(checkpoint: Checkpoint, tokenizer: Any) -> tuple[EasyToHard, Head]:
    """The family and the collapsed head of this checkpoint. Raises `ModelLoadError`."""
    kind = checkpoint.kind(KINDS)
    if tokenizer.eos_token_id is None:
        raise ModelLoadError("the verifier's tokenizer has no end-of-sequence token", "set eos_token in its config")
    readout = checkpoint.choice("eos_readout", checkpoint.settings.eos_readout, get_args(EosReadout), "at")
    family = EasyToHard(
        PlainEncoder(tokenizer),
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        kind=kind,
        eos_readout=cast(EosReadout, readout),
        default_aggregation=checkpoint.aggregation(kind, DEFAULT_AGGREGATION),
    )
    return family, collapsed_head(checkpoint.tensors, HEADS)

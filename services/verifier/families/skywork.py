"""Family skywork: Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B. One score a step.

    ids = encode(bos + q + "\\n") ++ encode(s_1) ++ [newline] ++ encode(s_2) ++ [newline] ++ ...

The score of a step is the sigmoid of the value head (`v_head.summary`) at the newline appended to it, as in the
published code (SkyworkAI/skywork-o1-prm-inference: `prepare_input` with step_token "\\n", `derive_step_rewards`).
There a step is a line; ours may have several, so newlines within a step become spaces.

Default aggregation: `prod` (Lightman et al., 2023); we found no rule of the authors (their code aggregates nothing).
"""

import re
from collections.abc import Sequence
from typing import Any

from services.core.aggregation import Aggregation
from services.core.contracts import VerifierKind
from services.runtime.tokens import PlainEncoder
from services.verifier.families.base import Encoded, flags_of, trimmed_steps
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.head import Head, read_head

NAME = "skywork"
DEFAULT_AGGREGATION = Aggregation.PROD
KINDS: tuple[VerifierKind, ...] = ("prm",)
HEADS = (("v_head.summary",),)
OUTPUTS = (1,)
_LINE_BREAKS = re.compile(r"[^\S\n]*\n\s*")


class Skywork:
    """Lines, with a value at the end of each."""

    name = NAME
    version = 1
    kind: VerifierKind = "prm"

    def __init__(self, encoder: PlainEncoder, *, bos_id: int | None, default_aggregation: Aggregation) -> None:
        self._encoder = encoder
        self._bos = [] if bos_id is None else [bos_id]
        self.default_aggregation = default_aggregation

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Ids up to the last newline; a row at the newline after each step."""
        # Problem and newline as one text: a tokenizer may merge the newline with a full stop before it.
        ids = [*self._bos, *self._encoder.first(f"{problem.strip()}\n")]
        rows = []
        for text in trimmed_steps(steps):
            ids += self._encoder.first(_LINE_BREAKS.sub(" ", text))
            rows.append(len(ids))
            ids.append(self._encoder.newline_id)
        return Encoded(tuple(ids), tuple(rows), None, flags_of(self._encoder, (problem, *steps)))


def build(checkpoint: Checkpoint, tokenizer: Any) -> tuple[Skywork, Head]:
    """The family and the value head of this checkpoint. Raises `ModelLoadError`."""
    kind = checkpoint.kind(KINDS)
    family = Skywork(
        PlainEncoder(tokenizer),
        bos_id=tokenizer.bos_token_id,
        default_aggregation=checkpoint.aggregation(kind, DEFAULT_AGGREGATION),
    )
    return family, read_head(checkpoint.tensors, HEADS, OUTPUTS)

"""Where a reward model computes: one pass over a packed trie, or one plain pass over one sequence to compare with.

The head is applied at read-out rows only: there is never a tokens x vocabulary tensor.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from services.verifier.families.base import Encoded
from services.verifier.head import Head
from services.verifier.packed_attention import NAME
from services.verifier.plan import Plan


@torch.inference_mode()
def packed_forward(
    body: Any, head: Head, ids: Sequence[int], positions: Sequence[int], rows: Sequence[int], plan: Plan
) -> torch.Tensor:
    """Probabilities [len(rows)] at `rows` of the packed row `ids`, float32 on the CPU."""
    device = head.device
    read = torch.tensor(rows, device=device, dtype=torch.long)
    with _last_layer_at(body, read):
        hidden = body(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            trie=plan,
        ).last_hidden_state[0]
    return head(hidden[read]).cpu()


@torch.inference_mode()
def plain_forward(body: Any, head: Head, encoded: Encoded) -> torch.Tensor:
    """The same of one sequence by transformers' own attention function: no trie, nothing padded, kept or compiled.

    What a CPU's layers were replaced with (`cpu_layers.py`) was compared with the original then, not here.
    """
    with _attention_of_transformers(body), torch.compiler.set_stance("force_eager"):
        hidden = body(input_ids=torch.tensor([encoded.ids], device=head.device), use_cache=False).last_hidden_state[0]
    return head(hidden[list(encoded.rows)]).cpu()


@contextmanager
def _last_layer_at(body: Any, rows: torch.Tensor) -> Iterator[None]:
    """The last layer's output at `rows` only: nothing else of it is read, and no later layer attends to it."""
    last: Any = body.layers[-1] if hasattr(body, "layers") else None
    parents = ((last, "mlp"), (getattr(last, "self_attn", None), "o_proj"))
    found = [(parent, name, getattr(parent, name, None)) for parent, name in parents]
    replaced = [(parent, name, inner) for parent, name, inner in found if isinstance(inner, torch.nn.Module)]
    for parent, name, inner in replaced:
        setattr(parent, name, _AtRows(inner, rows))
    try:
        yield
    finally:
        for parent, name, inner in replaced:
            setattr(parent, name, inner)


class _AtRows(torch.nn.Module):
    """`inner` applied to some rows of [1, rows, hidden], zero at the others."""

    def __init__(self, inner: torch.nn.Module, rows: torch.Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.rows = rows

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        at_rows = self.inner(hidden[:, self.rows])
        out = hidden.new_zeros(*hidden.shape[:2], at_rows.shape[-1])
        out[:, self.rows] = at_rows
        return out


@contextmanager
def _attention_of_transformers(body: Any) -> Iterator[None]:
    body.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        body.set_attn_implementation(NAME)

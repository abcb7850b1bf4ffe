"""One forward pass over a batch of sequences, head values at the read-out rows only.

The single place where a reward model computes. Rows are padded on the right: under causal attention no real token
sees what stands behind it, so no mask is needed and a sequence's values do not depend on its batch mates.
"""

from collections.abc import Sequence

import torch

from services.verifier.families.base import Encoded
from services.verifier.head import Head


@torch.inference_mode()
def forward(body: torch.nn.Module, head: Head, batch: Sequence[Encoded], pad_id: int) -> list[torch.Tensor]:
    """Probabilities [rows] of each sequence at its read-out rows, float32 on the CPU, in order.

    `body` is a decoder without its head, with full causal attention. There is never a tokens x vocabulary tensor.
    """
    device = head.device
    longest = max(len(e.ids) for e in batch)
    ids = torch.full((len(batch), longest), pad_id)
    for place, encoded in enumerate(batch):
        ids[place, : len(encoded.ids)] = torch.tensor(encoded.ids)
    hidden = body(input_ids=ids.to(device), use_cache=False).last_hidden_state
    places = [place for place, encoded in enumerate(batch) for _ in encoded.rows]
    rows = [row for encoded in batch for row in encoded.rows]
    values = head(hidden[places, rows]).cpu()
    return list(torch.split(values, [len(e.rows) for e in batch]))

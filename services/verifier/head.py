"""The reward head of a checkpoint: read from safetensors, checked, collapsed to what the read-out needs."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from services.core.errors import ModelLoadError


@dataclass(frozen=True)
class Head:
    """A linear head. `weight` is [outputs, hidden], `bias` [outputs]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [rows, outputs] in float32 of hidden states [rows, hidden]."""
        return torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()

    def to(self, device: torch.device) -> "Head":
        # float32 whatever the body computes in: a few thousand products a row, and the scores keep their digits.
        return Head(self.weight.to(device, torch.float32), self.bias.to(device, torch.float32))


def read_tensor(directory: Path, name: str) -> torch.Tensor | None:
    """A tensor by its name from whichever safetensors shard holds it; None when none does."""
    for shard in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as tensors:
                if name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                    tensor: torch.Tensor = tensors.get_tensor(name)
                    return tensor
        except SafetensorError as error:
            raise ModelLoadError(
                f"{shard.name} is no readable safetensors file", "download or save it again"
            ) from error
    return None


def collapse(rows: torch.Tensor) -> torch.Tensor:
    """The one row [1, hidden] that gives the mean of the two trained outputs.

    `rows` is [1, hidden] (already collapsed), [2, hidden], or the vocabulary-wide tiling of two rows that the
    published easy-to-hard checkpoints hold; there `logits.mean(-1)` equals this row's product. Raises
    `ModelLoadError` when the rows are no such tiling.
    """
    if rows.shape[0] == 1:
        return rows
    tiled = rows.shape[0] % 2 == 0 and bool((rows[0::2] == rows[0]).all()) and bool((rows[1::2] == rows[1]).all())
    if not tiled:
        raise ModelLoadError(
            f"the head of this model has {rows.shape[0]} rows that are no tiling of two",
            "this is a language model or another reward-model family, not an easy-to-hard verifier",
        )
    return ((rows[0].double() + rows[1].double()) / 2).to(rows.dtype).unsqueeze(0)

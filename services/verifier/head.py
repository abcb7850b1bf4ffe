"""The reward head of a checkpoint: read from safetensors, checked, collapsed to what the read-out needs."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from services.core.errors import ModelLoadError


@dataclass(frozen=True)
class Linear:
    """One layer of a head. `weight` is [outputs, inputs], `bias` [outputs]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(values, self.weight, self.bias)


@dataclass(frozen=True)
class Head:
    """From hidden states to probabilities: linear layers with ReLU between them, then a sigmoid or a softmax.

    `positive` is None where the last layer has one output (sigmoid), else the place of the "right" class (softmax).
    """

    layers: tuple[Linear, ...]
    positive: int | None = None

    @property
    def width(self) -> int:
        """The hidden size that the head takes."""
        return self.layers[0].weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.layers[0].weight.device

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Probabilities [rows], float32, of hidden states [rows, hidden]."""
        values = self.layers[0](hidden.float())
        for layer in self.layers[1:]:
            values = layer(torch.relu(values))
        return torch.sigmoid(values[:, 0]) if self.positive is None else torch.softmax(values, -1)[:, self.positive]

    def to(self, device: torch.device) -> "Head":
        # float32 whatever the body computes in: a few thousand products a row, and the scores keep their digits.
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, torch.float32)

        return Head(tuple(Linear(moved(one.weight), moved(one.bias)) for one in self.layers), self.positive)


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

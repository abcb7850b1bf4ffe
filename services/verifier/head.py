"""The reward head of a checkpoint: read from safetensors, checked, collapsed to what the read-out needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from services.core.errors import ModelLoadError
from services.verifier.tensors import TensorSource

# Where a language-model head is, and the embedding that serves as one where the two are tied.
LM_HEAD = "lm_head.weight"
TOKEN_HEADS = (("lm_head",), ("embed_out",), ("model.embed_tokens",), ("transformer.wte",))

# Alternatives, each the names of a head's layers in order, without ".weight".
Alternatives = Sequence[Sequence[str]]


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


def head_layers(tensors: TensorSource, heads: Alternatives) -> Sequence[str]:
    """The first of the alternatives that the checkpoint has. Raises `ModelLoadError` when it has none."""
    for layers in heads:
        if all(f"{name}.weight" in tensors for name in layers):
            return layers
    raise no_head(tensors, heads)


def check_outputs(tensors: TensorSource, layers: Sequence[str], outputs: Sequence[int]) -> None:
    """Raises `ModelLoadError` unless the last layer has one of the allowed numbers of outputs."""
    width = tensors.shapes[f"{layers[-1]}.weight"][0]
    if width not in outputs:
        allowed = " or ".join(map(str, outputs))
        raise ModelLoadError(
            f"the head {layers[-1]} of this model has {width} outputs, not {allowed}",
            "set E2H_VERIFIER_FAMILY to the family that it was trained as",
        )


def read_head(tensors: TensorSource, heads: Alternatives, outputs: Sequence[int], positive: int | None = None) -> Head:
    """A head of linear layers. `positive` is the place of the "right" class and applies where there are two outputs.

    Raises `ModelLoadError` for a missing head, and for one with another number of outputs.
    """
    layers = head_layers(tensors, heads)
    check_outputs(tensors, layers, outputs)
    read = tuple(_read_linear(tensors, name) for name in layers)
    return Head(read, None if read[-1].weight.shape[0] == 1 else positive)


def read_token_head(tensors: TensorSource, token_ids: Sequence[int], positive: int) -> Head:
    """The language-model head's rows of these tokens alone: a softmax over them, index `positive`.

    Where the head is tied to the embedding, the checkpoint has only that.
    """
    (name,) = head_layers(tensors, TOKEN_HEADS)
    bias = f"{name}.bias"
    rows = tensors.read(bias)[list(token_ids)] if bias in tensors else torch.zeros(len(token_ids))
    return Head((Linear(tensors.rows(f"{name}.weight", token_ids), rows),), positive)


def no_head(tensors: TensorSource, heads: Alternatives) -> ModelLoadError:
    """The refusal of a checkpoint that has none of these heads."""
    names = ", ".join(sorted({layers[0] for layers in heads}))
    return ModelLoadError(
        f"the model in {tensors.directory} has no reward head (one of {names})",
        "serve a reward model; a base model scores nothing",
    )


def _read_linear(tensors: TensorSource, name: str) -> Linear:
    weight = tensors.read(f"{name}.weight")
    bias = tensors.read(f"{name}.bias") if f"{name}.bias" in tensors else torch.zeros(weight.shape[0])
    return Linear(weight, bias)


def collapsed_head(tensors: TensorSource, heads: Alternatives) -> Head:
    """The head of an easy-to-hard verifier: one row that gives the mean of its outputs."""
    linear = _read_linear(tensors, head_layers(tensors, heads)[0])
    return Head((Linear(collapse(linear.weight), linear.bias.mean().reshape(1)),))


def collapse(rows: torch.Tensor) -> torch.Tensor:
    """The one row [1, hidden] that gives the mean of the two trained outputs.

    `rows` is [1, hidden] (already collapsed), [2, hidden], or the vocabulary-wide tiling of two rows that the
    published easy-to-hard checkpoints hold; there `logits.mean(-1)` equals this row's product, which is also tried.
    Raises `ModelLoadError` when the rows are no such tiling.
    """
    if rows.shape[0] == 1:
        return rows
    tiled = rows.shape[0] % 2 == 0 and bool((rows[0::2] == rows[0]).all()) and bool((rows[1::2] == rows[1]).all())
    if not tiled:
        raise _untiled(rows.shape[0])
    row = ((rows[0].double() + rows[1].double()) / 2).unsqueeze(0)
    _compare_with_plain_readout(rows, row)
    return row.float()


def _compare_with_plain_readout(rows: torch.Tensor, row: torch.Tensor) -> None:
    """The collapsed row against the mean over the whole head, on hidden states of ordinary size."""
    hidden = torch.randn(4, rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = torch.cat([hidden @ part.double().T for part in rows.split(4096)], -1).mean(-1, keepdim=True)
    if not torch.allclose(plain, hidden @ row.T, rtol=1e-6, atol=1e-6):
        raise ModelLoadError("the head of this model holds no finite numbers", "download or save the model again")


def _untiled(rows: int) -> ModelLoadError:
    return ModelLoadError(
        f"the head of this model has {rows} rows that are no tiling of two",
        "this is a language model or another reward-model family, not an easy-to-hard verifier",
    )


def refuse_untiled(tensors: TensorSource, name: str) -> None:
    """What `collapse` would refuse, as far as four rows tell. Raises `ModelLoadError`."""
    rows = tensors.shapes[name][0]
    if rows > 2 and (rows % 2 or not looks_tiled(tensors, name)):
        raise _untiled(rows)


def looks_tiled(tensors: TensorSource, name: str) -> bool:
    """Whether a head's first four rows repeat two, as only the tiled export of an easy-to-hard head does."""
    if name not in tensors or tensors.shapes[name][0] < 4:
        return False
    rows = tensors.rows(name, range(4))
    return bool((rows[0] == rows[2]).all() and (rows[1] == rows[3]).all())

"""The reward head of a checkpoint: read from safetensors, checked, collapsed to what the read-out needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from services.core.errors import ModelLoadError
from services.verifier.tensors import Tensors

# Where a language-model head is, and the embedding that serves as one where the two are tied.
LM_HEAD = "lm_head.weight"
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight")


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


def read_head(tensors: Tensors, layers: Sequence[str], outputs: Sequence[int], positive: int | None = None) -> Head:
    """A head of the named layers (`score.0`, `score.2`), whose last has one of the allowed numbers of outputs.

    `positive` is the place of the "right" class and applies where there are two outputs. Raises `ModelLoadError`.
    """
    read = tuple(_read_linear(tensors, name) for name in layers)
    width = read[-1].weight.shape[0]
    if width not in outputs:
        allowed = " or ".join(map(str, outputs))
        raise ModelLoadError(
            f"the head {layers[-1]} of this model has {width} outputs, not {allowed}",
            "set E2H_VERIFIER_FAMILY to the family that it was trained as",
        )
    return Head(read, None if width == 1 else positive)


def read_token_head(tensors: Tensors, token_ids: Sequence[int], positive: int) -> Head:
    """The language-model head's rows of these tokens alone: a softmax over them, index `positive`."""
    name = token_head_name(tensors)
    if name is None:
        raise no_head(tensors)
    return Head((Linear(tensors.rows(name, token_ids), _rows_of_bias(tensors, name, token_ids)),), positive)


def token_head_name(tensors: Tensors) -> str | None:
    """The matrix that gives token logits: the language-model head, or the embedding that it is tied to."""
    return next((name for name in (LM_HEAD, *_EMBEDDINGS) if name in tensors), None)


def no_head(tensors: Tensors) -> ModelLoadError:
    """The refusal of a checkpoint without a head."""
    return ModelLoadError(
        f"the model in {tensors.directory} has no reward head that is known (score, v_head, classifier or lm_head)",
        "serve a reward model; a base model scores nothing",
    )


def _read_linear(tensors: Tensors, name: str) -> Linear:
    if f"{name}.weight" not in tensors:
        raise no_head(tensors)
    weight = tensors.read(f"{name}.weight")
    bias = tensors.read(f"{name}.bias") if f"{name}.bias" in tensors else torch.zeros(weight.shape[0])
    return Linear(weight, bias)


def _rows_of_bias(tensors: Tensors, name: str, rows: Sequence[int]) -> torch.Tensor:
    bias = name.removesuffix("weight") + "bias"
    return tensors.read(bias)[list(rows)] if bias in tensors else torch.zeros(len(rows))


def collapsed_head(tensors: Tensors, name: str) -> Head:
    """The head of an easy-to-hard verifier: one row that gives the mean of its outputs."""
    if f"{name}.weight" not in tensors:
        raise no_head(tensors)
    linear = _read_linear(tensors, name)
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
        raise ModelLoadError(
            f"the head of this model has {rows.shape[0]} rows that are no tiling of two",
            "this is a language model or another reward-model family, not an easy-to-hard verifier",
        )
    row = ((rows[0].double() + rows[1].double()) / 2).unsqueeze(0)
    _compare_with_plain_readout(rows, row)
    return row.float()


def _compare_with_plain_readout(rows: torch.Tensor, row: torch.Tensor) -> None:
    """The collapsed row against the mean over the whole head, on hidden states of ordinary size."""
    hidden = torch.randn(4, rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = torch.cat([hidden @ part.double().T for part in rows.split(4096)], -1).mean(-1, keepdim=True)
    if not torch.allclose(plain, hidden @ row.T, rtol=1e-6, atol=1e-6):
        raise ModelLoadError("the head of this model holds no finite numbers", "download or save the model again")


def looks_tiled(tensors: Tensors, name: str) -> bool:
    """Whether a head's first four rows repeat two, as only the tiled export of an easy-to-hard head does."""
    if name not in tensors or tensors.shapes[name][0] < 4:
        return False
    rows = tensors.rows(name, range(4))
    return bool((rows[0] == rows[2]).all() and (rows[1] == rows[3]).all())

"""A CPU's norms and attention with fewer passes over memory: the same numbers, and nothing replaced that is something
else."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    GemmaConfig,
    GemmaModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    OlmoConfig,
    OlmoModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from services.verifier.cpu_layers import pack_layers
from services.verifier.cpu_linear import has_products
from tests.services.test_cpu_linear import SIZES, hidden

pytestmark = pytest.mark.skipif(not has_products(), reason="torch was built without oneDNN")
SCALED = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
# Each with what of a layer is replaced: its norms, its attention.
KINDS: dict[str, tuple[Any, bool, bool]] = {
    "llama": (lambda: LlamaModel(LlamaConfig(**SIZES)), True, True),
    "with biases": (lambda: LlamaModel(LlamaConfig(**SIZES, attention_bias=True)), True, True),
    "scaled rotations": (lambda: LlamaModel(LlamaConfig(**SIZES, rope_parameters=SCALED)), True, True),
    "mistral": (lambda: MistralModel(MistralConfig(**SIZES, sliding_window=None)), True, True),
    "qwen 2": (lambda: Qwen2Model(Qwen2Config(**SIZES)), True, True),
    "norms of queries and keys": (lambda: Qwen3Model(Qwen3Config(**SIZES)), True, False),
    "clipped queries": (lambda: OlmoModel(OlmoConfig(**SIZES, clip_qkv=0.5)), False, False),
    "norms that add one to their weight": (lambda: GemmaModel(GemmaConfig(**SIZES)), False, False),
}


def made(kind: str) -> Any:
    torch.manual_seed(0)
    model = KINDS[kind][0]().eval()
    for name, parameter in model.named_parameters():
        # Both are all alike at first, and a mistake with them would not show.
        if name.endswith("bias") or "norm" in name:
            nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_model_computes_what_it_did(kind: str) -> None:
    model = made(kind)
    before = {rows: hidden(model, rows) for rows in (1, 7, 300)}
    assert pack_layers(model)
    for rows, expected in before.items():
        assert torch.allclose(hidden(model, rows), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_written_as_assumed_is_replaced_and_nothing_else(kind: str) -> None:
    model = made(kind)
    before = model.layers[0]
    norm, attention = before.input_layernorm, before.self_attn
    assert pack_layers(model)
    found = (model.layers[0].input_layernorm is not norm, model.layers[0].self_attn is not attention)
    assert found == KINDS[kind][1:]


def test_attention_of_the_same_names_put_together_otherwise_stays() -> None:
    model = made("llama")
    attention = model.layers[1].self_attn
    attention.scaling *= 2
    inner = attention.forward
    attention.forward = lambda **options: (inner(**options)[0] * 2, None)
    before = hidden(model, 9)
    pack_layers(model)
    assert model.layers[0].self_attn is not model.layers[1].self_attn is attention
    assert torch.allclose(hidden(model, 9), before, atol=1e-4)


def test_another_dtype_is_left_alone() -> None:
    model = made("llama").to(torch.bfloat16)
    norm, attention = model.norm, model.layers[0].self_attn
    pack_layers(model)
    assert model.norm is norm
    assert model.layers[0].self_attn is attention


def test_a_row_that_is_not_a_number_spoils_no_other() -> None:
    model = made("llama")
    rows = torch.randn(1, 3, SIZES["hidden_size"])
    expected = model.norm(rows)
    pack_layers(model)
    rows[0, 1, 5] = float("nan")
    found = model.norm(rows)
    assert torch.allclose(found[0, [0, 2]], expected[0, [0, 2]], atol=1e-5)
    assert found[0, 1].isnan().all()

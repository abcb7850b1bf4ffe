"""Linear layers laid out for oneDNN: the same products, and nothing replaced that is something else."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GemmaConfig, GemmaModel, LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from services.verifier.cpu_linear import pack_linears

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
available = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
KINDS = {
    "silu": lambda: LlamaModel(LlamaConfig(**SIZES)),
    "with biases": lambda: LlamaModel(LlamaConfig(**SIZES, mlp_bias=True, attention_bias=True)),
    "qwen": lambda: Qwen2Model(Qwen2Config(**SIZES)),
    "another activation": lambda: GemmaModel(GemmaConfig(**SIZES)),
}


def hidden(model: nn.Module, rows: int) -> torch.Tensor:
    torch.manual_seed(rows)
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.randint(0, 50, (1, rows)), use_cache=False).last_hidden_state
    return found


@available
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("rows", [1, 7, 1500])
def test_a_packed_model_computes_what_it_did(kind: str, rows: int) -> None:
    torch.manual_seed(0)
    model: nn.Module = KINDS[kind]().eval()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    before = hidden(model, rows)
    assert pack_linears(model)
    assert not any(type(module) is nn.Linear for module in model.modules())
    assert torch.allclose(hidden(model, rows), before, atol=1e-5)


@available
def test_layers_of_the_same_names_put_together_otherwise_are_packed_one_by_one() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.act_fn = nn.SiLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) * 2  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = nn.Sequential(Doubled())
    rows = torch.randn(5, 8)
    with torch.inference_mode():
        before = model(rows)
        pack_linears(model)
        assert torch.allclose(model(rows), before, atol=1e-6)
    assert isinstance(model[0], Doubled)


@available
def test_another_dtype_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4).to(torch.bfloat16))
    pack_linears(model)
    assert type(model[0]) is nn.Linear


def test_without_the_kernels_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = nn.Sequential(nn.Linear(4, 4))
    assert not pack_linears(model)
    assert type(model[0]) is nn.Linear

"""How the verifier's new layers start: the first as the generator's own logit of every result. No training loop.

A judge needs to compare what is written with what the model expected. Both are there below the new layers:
the token's embedding at the token, the expectation one token earlier. ``look_back`` brings the expectation to
the token, ``multiply`` forms the product of the two, which is the token's logit; training goes on from there.
From blank layers the comparison was not found within minutes (see docs/decisions/0005-lab-domain.md). The second
carries it to where scores are read. A third is free: its heads begin by looking everywhere alike, so that the end of a
solution can gather what its steps say; with heads that look a fixed way back the outcome stayed at chance.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

LOOK_BACK = 6.0  # with it a head puts 99 % of its weight on one token
LOOKING_BACK = 2  # new layers whose heads start so; those after them are free
WRITE = 1.5  # how strongly the expectation is written beside what is there
DIRECTIONS = 24  # of the numbers' embeddings; more do not fit beside what a layer holds already
RIDGE = 1e-3


@torch.no_grad()
def start_comparison(model: LlamaForCausalLM, old_layers: int, batch: dict[str, Tensor]) -> None:
    """Set the layers from ``old_layers`` on; ``batch`` (a packed batch) is read for what tokens look like inside."""
    layers: Any = model.model.layers
    for place, layer in enumerate(layers[old_layers:]):
        if place < LOOKING_BACK:
            look_back(layer.self_attn, model.config)
        else:
            look_everywhere(layer.self_attn)
        layer.mlp.down_proj.weight.normal_(std=0.02)
    first = layers[old_layers]
    used = model.model.embed_tokens.weight[batch["input_ids"][_results(batch)].unique()]
    basis = torch.linalg.svd(used - used.mean(0))[2][:DIRECTIONS].T  # [hidden, directions]
    first.self_attn.v_proj.weight[:DIRECTIONS] = basis.T * model.model.norm.weight
    room = torch.linalg.qr(torch.randn(model.config.hidden_size, DIRECTIONS))[0]
    first.self_attn.o_proj.weight.zero_()
    first.self_attn.o_proj.weight[:, :DIRECTIONS] = WRITE * room
    multiply(model, first, basis, batch)


def look_back(attention: Any, config: Any) -> None:
    """Start the heads as "one token back", "two tokens back", ...

    Under rotary positions a constant query and a constant key, turned against each other by d positions, attend
    d back; the biases hold them.
    """
    half = config.head_dim // 2
    theta = config.rope_parameters["rope_theta"]
    angles = theta ** (-torch.arange(half) / half)
    used = (torch.arange(half) < half // 2).float()  # the fast half: the slow frequencies hold no token apart
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.zero_()
    for head in range(config.num_attention_heads):
        rows = slice(head * config.head_dim, (head + 1) * config.head_dim)
        turn = (head + 1) * angles
        attention.q_proj.bias[rows] = LOOK_BACK * torch.cat([used * turn.cos(), -used * turn.sin()])
        attention.k_proj.bias[rows] = LOOK_BACK * torch.cat([used, torch.zeros(half)])
    attention.o_proj.weight.normal_(std=0.06)


def look_everywhere(attention: Any) -> None:
    """Start the heads with equal weights on all that they may see."""
    attention.q_proj.weight.zero_()
    attention.o_proj.weight.normal_(std=0.06)


def multiply(model: LlamaForCausalLM, layer: Any, basis: Tensor, batch: dict[str, Tensor]) -> None:
    """Let the layer's MLP multiply token and expectation: silu(x) y + silu(-x) (-y) = x y, summed over ``basis``."""
    inputs, expected = _look_inside(model, layer, batch)
    token = model.model.embed_tokens(batch["input_ids"]) @ basis
    before = expected.roll(1, dims=1) @ basis
    kept = _results(batch)
    x, y = _fit(inputs[kept], token[kept]), _fit(inputs[kept], before[kept])
    x, y = x / token[kept].std(), y / before[kept].std()
    size = basis.shape[1]
    mlp = layer.mlp
    mlp.gate_proj.weight[: 2 * size] = torch.cat([x, -x])
    mlp.up_proj.weight[: 2 * size] = torch.cat([y, -y])
    direction = torch.randn(basis.shape[0])
    mlp.down_proj.weight[:, : 2 * size] = (direction / math.sqrt(size))[:, None] * 0.5


def _look_inside(model: LlamaForCausalLM, layer: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the layer's MLP reads, and the final representation under the layers below; both [batch, T, hidden]."""
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0]), with_kwargs=True),
        layer.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
    ]
    model.model(**{name: batch[name] for name in ("input_ids", "position_ids", "attention_mask")})
    for hook in hooks:
        hook.remove()
    below, inputs = seen
    return inputs, model.model.norm(below)


def _results(batch: dict[str, Tensor]) -> Tensor:
    """[batch, T] bool: the last token of a step, which is its result: the token before its newline."""
    read = batch["step_labels"] >= 0
    results = torch.zeros_like(read)
    results[:, :-1] = read[:, :-1] & read[:, 1:]
    return results


def _fit(inputs: Tensor, targets: Tensor) -> Tensor:
    """Ridge regression: [targets, hidden] weights."""
    gram = inputs.T @ inputs + RIDGE * len(inputs) * torch.eye(inputs.shape[1])
    weights: Tensor = torch.linalg.solve(gram, inputs.T @ targets)
    return weights.T

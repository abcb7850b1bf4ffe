"""A CPU's decoder layers with fewer passes over memory: norms, rotations, products. float32 only.

What transformers writes as five operations over all rows (a norm) or nine (the rotation of queries and keys) is two or
one here, without a compiler on the serving machine. Only classes that are known to compute what is assumed are
replaced, for some rows cannot tell what a module does beyond a threshold or at a late position (OLMo clips queries);
each replacement is compared with what it replaces all the same.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from services.verifier.cpu_linear import Packed, PackedLinear, has_products, is_plain, pack_linears
from services.verifier.plan import Plan
from services.verifier.trie import key_of, pack

_PROBE_ROWS = 5
_NORMS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
_ROTARY_ATTENTION = (LlamaAttention, MistralAttention, Qwen2Attention)


def pack_layers(body: Any) -> bool:
    """Replace norms, attention and linear layers of `body`, in place, where torch has oneDNN's products.

    Returns whether it has. Scores stay the same up to float32 rounding; gradients are gone.
    """
    if not has_products():
        return False
    with torch.inference_mode():
        _replace_norms(body)
        _replace_attention(body)
    return pack_linears(body)


def _replace_norms(body: nn.Module) -> None:
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if (norm := _as_norm(child)) is not None:
                setattr(parent, name, norm)


def _as_norm(module: Any) -> "_Norm | None":
    """The same norm over the root mean square, if that is what the module is."""
    if type(module) not in _NORMS or module.weight.dtype != torch.float32 or module.weight.device.type != "cpu":
        return None
    norm = _Norm(module.weight.detach(), module.variance_epsilon)
    # Small numbers too, so that epsilon tells.
    sizes = torch.tensor([[1.0], [module.variance_epsilon**0.5]])
    rows = torch.linspace(-1.0, 2.0, 2 * len(module.weight)).view(1, 2, -1) * sizes
    return norm if _same(module(rows), norm(rows)) else None


def _same(expected: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether they differ by rounding only, which goes by the largest of the numbers that were added up."""
    return torch.allclose(expected, found, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


class _Norm(nn.Module):
    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self._epsilon = epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        scale = norm.square_().mul_(1 / hidden.shape[-1]).add_(self._epsilon).rsqrt_()
        return torch.mul(hidden, scale).mul_(self.weight)


def _replace_attention(body: Any) -> None:
    for layer in getattr(body, "layers", ()):
        if type(getattr(layer, "self_attn", None)) not in _ROTARY_ATTENTION:
            continue
        if (packed := _as_rotary_attention(layer.self_attn, body.rotary_emb)) is not None:
            layer.self_attn = packed


def _as_rotary_attention(module: Any, rotary: nn.Module) -> "_RotaryAttention | None":
    """The same attention, if it rotates halves of whole heads, as Llama's does."""
    if not all(is_plain(child) for child in module.children()):
        return None
    rows = torch.linspace(-1.0, 1.0, _PROBE_ROWS * module.q_proj.in_features).view(1, _PROBE_ROWS, -1).sin()
    cos, sin = rotary(rows, torch.arange(_PROBE_ROWS).unsqueeze(0))
    half = module.head_dim // 2
    if cos.shape[-1] != 2 * half or not all(torch.equal(each[..., :half], each[..., half:]) for each in (cos, sin)):
        return None
    packed = _RotaryAttention(module)
    plan = Plan(pack([key_of(range(_PROBE_ROWS))]), (), ())
    expected, found = (
        attention(hidden_states=rows, position_embeddings=(cos, sin), attention_mask=None, trie=plan)[0]
        for attention in (module, packed)
    )
    return packed if _same(expected, found) else None


class _RotaryAttention(nn.Module):
    """Queries, keys and values in one product; the two numbers of a pair that rotates stand beside each other, so that
    a rotation is a product of complex numbers, in place."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.o_proj = PackedLinear(attention.o_proj)
        # What transformers' attention functions read.
        self.config, self.layer_idx, self.is_causal = attention.config, attention.layer_idx, attention.is_causal
        self.num_key_value_groups = attention.num_key_value_groups
        self._size, self._scale = attention.head_dim, attention.scaling
        self._keys = attention.k_proj.out_features // self._size
        self._packed = Packed(_joined(attention, self._size))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads = self._packed(hidden_states).unflatten(-1, (-1, self._size))
        cos, sin = (each[..., : self._size // 2].unsqueeze(2) for each in position_embeddings)
        pairs = heads[:, :, : -self._keys].unflatten(-1, (-1, 2))
        torch.view_as_complex(pairs).mul_(torch.complex(cos, sin))
        q, k, v = heads.transpose(1, 2).tensor_split((-2 * self._keys, -self._keys), dim=1)
        attend = AttentionInterface()[self.config._attn_implementation]
        out, weights = attend(self, q, k, v, attention_mask, dropout=0.0, scaling=self._scale, **options)
        return self.o_proj(out.flatten(2)), weights


def _joined(attention: Any, size: int) -> nn.Linear:
    """One linear layer: queries and keys, each head's first half and second half interleaved, then values."""
    rotated = [_interleaved(layer, size) for layer in (attention.q_proj, attention.k_proj)]
    weights, biases = zip(*rotated, (attention.v_proj.weight, attention.v_proj.bias), strict=True)
    weight = torch.cat(weights)
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=biases[0] is not None, device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    if biases[0] is not None:
        joined.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return joined


def _interleaved(layer: nn.Linear, size: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    def turn(rows: torch.Tensor) -> torch.Tensor:
        halves: torch.Tensor = rows.unflatten(0, (-1, 2, size // 2))
        return halves.transpose(1, 2).flatten(0, 2)

    return turn(layer.weight), None if layer.bias is None else turn(layer.bias)

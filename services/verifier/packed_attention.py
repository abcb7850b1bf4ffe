"""Attention over a packed trie: every row sees its ancestors. Which code computes it depends on the device.

Registered with transformers under `NAME`, so that any decoder with full causal attention runs on it unchanged; the
plan of a batch travels as the keyword `trie` through the model.
"""

from typing import Any

import torch
from transformers import AttentionInterface

from services.verifier import cpu_attention, gpu_attention
from services.verifier.plan import Plan

NAME = "e2h_trie"


@torch.compiler.disable  # type: ignore[untyped-decorator]
def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    trie: Plan | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention contract: query [1, heads, rows, size], key and value [1, key-value heads, rows, size].

    Returns [1, rows, heads, size]. Raises `ValueError` for what would silently be ignored (a mask, soft caps, sinks)
    and for values of another size than keys.
    """
    if trie is None or attention_mask is not None:
        raise ValueError("the packed attention needs a trie and no mask")
    refused = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if options.get(name) is not None]
    if refused:
        raise ValueError(f"the packed attention has no {', '.join(refused)}")
    if key.shape != value.shape:
        raise ValueError("the packed attention has keys and values of one size")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    trie.store(layer, key[0], value[0])
    attend = gpu_attention.attend if query.device.type == "cuda" else cpu_attention.attend
    return attend(trie, layer, query[0], key[0], value[0], scaling).unsqueeze(0), None


AttentionInterface.register(NAME, packed_attention)

"""Attention over a packed trie: every row sees its ancestors, and keys that rows share are read once for all of them.

Registered with transformers under `NAME`, so that any decoder with full causal attention runs on it unchanged; the
plan of a batch travels as the keyword `trie` through the model. On a CPU: one causal call a segment, one call for all
descendants of what they share, partial softmaxes merged by their log-sum-exp in float32. On a GPU: one FlexAttention
call, whose mask is one comparison, because the descendants of a row are an interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from services.verifier.trie import Packed, attention_calls

NAME = "e2h_trie"
# Runs of fewer shared tokens cost less when each segment below repeats them than as a call of their own and a merge.
FOLD_BELOW = 64


@dataclass(frozen=True, slots=True)
class Kept:
    """Keys and values from before: `kvs` follow one another on a path and are seen by the rows [begin, end).

    Each is [layers, 2, key-value heads, tokens, head size].
    """

    kvs: tuple[torch.Tensor, ...]
    begin: int
    end: int

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [key-value heads, tokens, head size] of one layer."""
        parts = [kv[index] for kv in self.kvs]
        both = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        return both[0], both[1]


class Plan:
    """What one forward pass over a packed trie attends to, and which keys and values it hands out."""

    def __init__(self, packed: Packed, kept: Sequence[Kept], stores: Sequence[tuple[int, int, torch.Tensor]]) -> None:
        """`stores`: (begin, end, tensor) of the row slices whose keys and values are copied into the tensor."""
        self.packed = packed
        self.kept = tuple(kept)
        self.stores = tuple(stores)
        self.causal, self.cross = attention_calls(packed, FOLD_BELOW)

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Copy the rows of `key` and `value` [key-value heads, rows, head size] to where they are wanted."""
        for begin, end, tensor in self.stores:
            tensor[layer, 0].copy_(key[:, begin:end])
            tensor[layer, 1].copy_(value[:, begin:end])

    @cached_property
    def masks(self) -> "_Masks":
        return _Masks(self)


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

    Returns [1, rows, heads, size]. Raises `ValueError` for what would silently be ignored: a mask, soft caps, sinks.
    """
    if trie is None or attention_mask is not None:
        raise ValueError("the packed attention needs a trie and no mask")
    refused = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if options.get(name) is not None]
    if refused:
        raise ValueError(f"the packed attention has no {', '.join(refused)}")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    trie.store(layer, key[0], value[0])
    compute = _flex if query.device.type == "cuda" else _grouped
    return compute(trie, layer, query[0], key[0], value[0], scaling).unsqueeze(0), None


AttentionInterface.register(NAME, packed_attention)


def _grouped(
    plan: Plan, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """[rows, heads, size] on a CPU. The heads of one key-value head stand side by side and no key is repeated."""
    groups = query.shape[0] // key.shape[0]
    q = query.unflatten(0, (key.shape[0], groups))
    # float32, where partial softmaxes are merged; [rows, key-value heads, groups, size] in memory, as the caller wants.
    out = torch.empty(query.shape[1], key.shape[0], groups, value.shape[-1], dtype=torch.float32)
    merged = _Merged(out.permute(1, 2, 0, 3), torch.empty(q.shape[:3], dtype=torch.float32))
    for causal in plan.causal:
        begin, end = causal.rows[-1]
        queries, k, v = (_gather(tensor, causal.rows) for tensor in (q, key, value))
        part, lse = _flash(queries, k, v, scale, is_causal=True)
        asked = begin - end
        merged.set(begin, end, part[..., asked:, :], lse[..., asked:])
    for cross in plan.cross:
        k, v = _gather(key, cross.keys), _gather(value, cross.keys)
        merged.merge(cross.begin, cross.end, *_flash(q[..., cross.begin : cross.end, :], k, v, scale, is_causal=False))
    for kept in plan.kept:
        k, v = kept.layer(layer)
        merged.merge(kept.begin, kept.end, *_flash(q[..., kept.begin : kept.end, :], k, v, scale, is_causal=False))
    return out.flatten(1, 2).to(query.dtype)


@dataclass(frozen=True, slots=True)
class _Merged:
    """Softmax attention over all keys seen so far. `out` is [kv heads, groups, rows, size], `lse` [.., rows]."""

    out: torch.Tensor
    lse: torch.Tensor

    def set(self, begin: int, end: int, part: torch.Tensor, lse: torch.Tensor) -> None:
        self.out[..., begin:end, :] = part
        self.lse[..., begin:end] = lse

    def merge(self, begin: int, end: int, part: torch.Tensor, lse: torch.Tensor) -> None:
        """Add the attention of the rows [begin, end) to other keys."""
        before = self.lse[..., begin:end]
        # The other keys' share of the softmax: exp(lse) / (exp(before) + exp(lse)).
        share = torch.sigmoid(lse - before).unsqueeze(-1)
        self.out[..., begin:end, :].lerp_(part.float(), share)
        torch.logaddexp(before, lse, out=before)


def _gather(tensor: torch.Tensor, slices: Sequence[tuple[int, int]]) -> torch.Tensor:
    """The rows of these slices, one after the other; a view where there is one."""
    parts = [tensor[..., begin:end, :] for begin, end in slices]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, is_causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and its log-sum-exp: q [kv heads, groups, rows, size], k and v [kv heads, keys, size]."""
    k, v = (tensor.unsqueeze(1).expand(-1, q.shape[1], -1, -1) for tensor in (k, v))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal, scale=scale)
    return out, lse


class _Masks:
    """For FlexAttention: the keys are what was kept, then the rows; key j is seen by the rows [first[j], last[j])."""

    def __init__(self, plan: Plan) -> None:
        first, last = [], []
        for kept in plan.kept:
            tokens = sum(kv.shape[3] for kv in kept.kvs)
            first += [kept.begin] * tokens
            last += [kept.end] * tokens
        for segment in plan.packed.segments:
            first += range(segment.begin, segment.end)
            last += [segment.subtree_end] * (segment.end - segment.begin)
        self._first, self._last = first, last
        self._made: dict[tuple[torch.device, int], BlockMask] = {}
        self._moved: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def block_mask(self, rows: int, device: torch.device) -> BlockMask:
        if (device, rows) not in self._made:
            self._made[device, rows] = self._make(rows, device)
        return self._made[device, rows]

    def spoilt(self, finite: torch.Tensor, rows: int) -> torch.Tensor:
        """Whether each row sees a key that is not finite, given whether each key is."""
        first, last = self._bounds(finite.device)
        bad = (~finite).to(torch.int32)
        # Where such a key comes into sight and where it goes out of it again.
        changes = torch.zeros(rows + 1, dtype=torch.int32, device=finite.device)
        changes.index_add_(0, first, bad).index_add_(0, last, -bad)
        return changes.cumsum(0)[:rows] > 0

    def _bounds(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if device not in self._moved:
            self._moved[device] = (torch.tensor(self._first, device=device), torch.tensor(self._last, device=device))
        return self._moved[device]

    def _make(self, rows: int, device: torch.device) -> BlockMask:
        first, last = self._bounds(device)

        def sees(batch: torch.Tensor, head: torch.Tensor, row: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return (first[key] <= row) & (row < last[key])

        return create_block_mask(sees, B=None, H=None, Q_LEN=rows, KV_LEN=len(self._first), device=str(device))


@cache
def _flex_attention(compiled: bool) -> Callable[..., torch.Tensor]:
    # Uncompiled it builds the whole score matrix; that is for tests on a CPU.
    return cast(
        Callable[..., torch.Tensor], torch.compile(flex_attention, dynamic=True) if compiled else flex_attention
    )


def _flex(
    plan: Plan, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """[rows, heads, size] by one FlexAttention call."""
    kept = [one.layer(layer) for one in plan.kept]
    k = torch.cat([*(keys for keys, _ in kept), key], dim=1)
    v = torch.cat([*(values for _, values in kept), value], dim=1)
    mask = plan.masks.block_mask(query.shape[1], query.device)
    attend = _flex_attention(query.is_cuda)
    finite = torch.isfinite(k).all(-1).all(0) & torch.isfinite(v).all(-1).all(0)
    # A key that is not seen has weight 0, and 0 times NaN would be NaN in every row of its block.
    k, v = torch.nan_to_num(k, 0.0, 0.0, 0.0), torch.nan_to_num(v, 0.0, 0.0, 0.0)
    out = attend(query[None], k[None], v[None], block_mask=mask, scale=scale, enable_gqa=True)[0].transpose(0, 1)
    return out.masked_fill(plan.masks.spoilt(finite, query.shape[1])[:, None, None], float("nan"))

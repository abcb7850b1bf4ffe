"""The attention of a packed trie on a GPU: one FlexAttention call, whose mask is one comparison.

The descendants of a row are an interval of rows, for a key of the batch and for one that was kept from before alike.
"""

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from services.verifier.plan import Plan


def attend(
    plan: Plan, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """[rows, heads, size] of query [heads, rows, size], key and value [key-value heads, rows, size]."""
    masks = plan.once(_Masks)
    kept = [kv[layer] for one in plan.kept for kv in one.kvs]
    k = torch.cat([*(kv[0] for kv in kept), key], dim=1)
    v = torch.cat([*(kv[1] for kv in kept), value], dim=1)
    mask = masks.block_mask(query.shape[1], query.device)
    flex = _flex_attention(query.is_cuda)
    finite = torch.isfinite(k).all(-1).all(0) & torch.isfinite(v).all(-1).all(0)
    # A key that is not seen has weight 0, and 0 times NaN would be NaN in every row of its block.
    k, v = torch.nan_to_num(k, 0.0, 0.0, 0.0), torch.nan_to_num(v, 0.0, 0.0, 0.0)
    out = flex(query[None], k[None], v[None], block_mask=mask, scale=scale, enable_gqa=True)[0].transpose(0, 1)
    return out.masked_fill(masks.spoilt(finite, query.shape[1])[:, None, None], float("nan"))


class _Masks:
    """The keys are what was kept, then the rows; key j is seen by the rows [first[j], last[j])."""

    def __init__(self, plan: Plan) -> None:
        first, last = [], []
        for kept in plan.kept:
            first += [kept.begin] * kept.tokens
            last += [kept.end] * kept.tokens
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

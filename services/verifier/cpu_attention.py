"""The attention of a packed trie on a CPU: blocks of rows, each with all keys that it sees side by side.

The rows of a block see the same keys above them, so a mask is needed among themselves only, and no partial softmax has
to be merged with another. float32 goes through oneDNN's products, which are up to twice as fast on matrices of this
size as those inside PyTorch's flash attention; what oneDNN does not serve goes through the latter.
"""

import math
from dataclasses import dataclass

import torch

from services.verifier.cpu_linear import has_products, product
from services.verifier.plan import Plan
from services.verifier.trie import Block, attention_blocks

# The scores of a block should stay in a core's cache: of 128 rows, 3 query heads and 1,000 keys they are 1.5 MB.
_MOST_ROWS = 128
# oneDNN makes code for each new shape, in half a millisecond: keys come in fewer lengths than solutions do.
_KEYS_STEP = 32


def attend(
    plan: Plan, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """[rows, heads, size] of query [heads, rows, size], key and value [key-value heads, rows, size]."""
    # The query heads of one key-value head stand side by side: no key is repeated.
    q = query.unflatten(0, (key.shape[0], query.shape[0] // key.shape[0]))
    out = query.new_empty(query.shape[1], *q.shape[:2], value.shape[-1])
    attention = _by_products if query.dtype == torch.float32 and has_products() else _by_flash
    # No score is larger than the product of these norms.
    sound = math.isfinite(query.norm() * key.norm()) and math.isfinite(value.norm())
    for block in plan.once(_blocks if sound else _segments):
        rows = slice(block.begin, block.end)
        keys, values = (_seen(block, layer, which, tensor) for which, tensor in enumerate((key, value)))
        attention(q[:, :, rows], keys, values, block.mask, scale, out[rows])
    return out.flatten(1, 2)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows [begin, end) that attend to `kept` ([layers, 2, key-value heads, tokens, size]), to the rows of `above`,
    and to each other as `mask` says: added to the scores [rows, rows + keys of padding]."""

    begin: int
    end: int
    above: tuple[tuple[int, int], ...]
    kept: tuple[torch.Tensor, ...]
    mask: torch.Tensor


def _blocks(plan: Plan) -> list[_Block]:
    return _blocks_of(plan, across=True)


def _segments(plan: Plan) -> list[_Block]:
    """Blocks that hold rows of one segment each. A key that is masked has weight 0, and 0 times NaN is NaN in every row
    of its block, as is a score of inf that is masked; so where these may occur, a row shares its block with those only
    that share its fate."""
    return _blocks_of(plan, across=False)


def _blocks_of(plan: Plan, *, across: bool) -> list[_Block]:
    last = torch.empty(plan.packed.rows, dtype=torch.long)
    for segment in plan.packed.segments:
        last[segment.begin : segment.end] = segment.subtree_end
    cuts = {row for kept in plan.kept for row in (kept.begin, kept.end)}
    blocks = attention_blocks(plan.packed, _MOST_ROWS, across=across, cuts=cuts)
    return [_with_kept(plan, block, last) for block in blocks]


def _with_kept(plan: Plan, block: Block, last: torch.Tensor) -> _Block:
    kept = [one for one in plan.kept if one.begin <= block.begin < one.end]
    rows = torch.arange(block.begin, block.end)
    sees = (rows <= rows[:, None]) & (rows[:, None] < last[block.begin : block.end])
    keys = sum(one.tokens for one in kept) + sum(end - begin for begin, end in block.above) + len(rows)
    mask = torch.full((len(rows), len(rows) + -keys % _KEYS_STEP), float("-inf"))
    mask[:, : len(rows)].masked_fill_(sees, 0.0)
    return _Block(block.begin, block.end, block.above, tuple(kv for one in kept for kv in one.kvs), mask)


def _seen(block: _Block, layer: int, which: int, rows: torch.Tensor) -> torch.Tensor:
    """What the block sees of the keys (0) or values (1), [key-value heads, keys, size]; zeros at the end as padding."""
    slices = (*block.above, (block.begin, block.end))
    padding = rows.new_zeros(rows.shape[0], block.mask.shape[1] - block.mask.shape[0], rows.shape[2])
    parts = [*(kv[layer, which] for kv in block.kept), *(rows[:, begin:end] for begin, end in slices), padding]
    return torch.cat(parts, dim=1)


# Both take q [key-value heads, groups, rows, size], k and v [key-value heads, keys, size], a mask for the last of the
# keys (-inf where one is not seen), and room [rows, key-value heads, groups, size] for what comes out.


def _by_products(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, out: torch.Tensor
) -> None:
    queries = torch.mul(q, scale, out=q.new_empty(q.shape)).flatten(1, 2)
    for head, rows in enumerate(queries):
        scores = product(rows, k[head]).unflatten(0, q.shape[1:3])
        scores[..., -mask.shape[1] :].add_(mask)
        mixed = product(torch.softmax(scores, -1).flatten(0, 1), v[head].t())
        out[:, head] = mixed.unflatten(0, q.shape[1:3]).transpose(0, 1)


def _by_flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, out: torch.Tensor
) -> None:
    k, v = (tensor.unsqueeze(1).expand(-1, q.shape[1], -1, -1) for tensor in (k, v))
    whole = torch.nn.functional.pad(mask.to(q.dtype), (k.shape[2] - mask.shape[1], 0))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=whole, scale=scale)
    out.copy_(mixed.permute(2, 0, 1, 3))

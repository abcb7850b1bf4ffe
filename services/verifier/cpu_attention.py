"""The attention of a packed trie on a CPU: blocks of rows, each with all keys that it sees side by side.

The rows of a block see the same keys above them, so a mask is needed among themselves only, and no partial softmax has
to be merged with another. float32 goes through oneDNN's products where those are faster than PyTorch's flash attention;
all else goes through the latter.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch

from services.runtime.machine import maker
from services.verifier.cpu_linear import has_products, product
from services.verifier.plan import Plan
from services.verifier.trie import Block, attention_blocks, joined

# The scores of a block should stay in a core's cache: of 128 rows, 3 query heads and 1,000 keys they are 1.5 MB.
_MOST_ROWS = 128
# oneDNN makes code for each new shape, in half a millisecond: keys come in fewer lengths than solutions do.
_KEYS_STEP = 32
# The family of AMD's processors from which the servers' AVX-512 has full width.
_ZEN_5 = 26
# From so many multiplications on, oneDNN's products and the ten operations around them take less time than PyTorch's
# flash attention (decision 0024): where they run at twice the rate, and where at the same.
_LEAST_WORK_AT_TWICE_THE_RATE = 1.3e6
_LEAST_WORK = 3e6
# Between these float32 has all its digits for a sum of powers, and for products with values from 1e-20 to 1e20.
_SUMS = (2.0**-60, 2.0**60)


@cache
def least_work() -> float:
    """How many multiplications of a head's queries and keys it takes to choose products; infinite where never.

    PyTorch's flash attention multiplies by MKL where torch has it, which is as fast as oneDNN on Intel's processors
    and keeps to AVX2 on others.
    """
    vendor, family = maker()
    if not has_products() or (vendor == "GenuineIntel" and torch.backends.mkl.is_available()):
        return math.inf
    return _LEAST_WORK_AT_TWICE_THE_RATE if vendor == "AuthenticAMD" and family >= _ZEN_5 else _LEAST_WORK


def attend(
    plan: Plan, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """[rows, heads, size] of query [heads, rows, size], key and value [key-value heads, rows, size]."""
    out = _attend(plan.once(_blocks), layer, query, key, value, scale)
    if not math.isfinite(out.norm()):
        out = _attend(plan.once(_segments), layer, query, key, value, scale)
    return out.flatten(1, 2)


def _attend(
    blocks: list["_Block"], layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """[rows, key-value heads, query heads of each, size]."""
    # The query heads of one key-value head stand side by side: no key is repeated.
    q = query.unflatten(0, (key.shape[0], query.shape[0] // key.shape[0]))
    out = query.new_empty(query.shape[1], *q.shape[:2], value.shape[-1])
    seen = key.new_zeros(2, key.shape[0], max(block.keys for block in blocks), key.shape[2])
    for block in blocks:
        block.lay_side_by_side(layer, key, value, seen)
        rows = slice(block.begin, block.end)
        keys, values = seen[:, :, : block.keys]
        _mix(q[:, :, rows], keys, values, block.mask, scale, out[rows])
    return out


@dataclass(frozen=True, slots=True)
class _Part:
    """Keys that stand side by side: the rows [begin, end) of this pass, or those of `kept` ([layers, 2, key-value
    heads, tokens, size])."""

    begin: int
    end: int
    kept: torch.Tensor | None = None

    def begins_as(self, other: "_Part") -> bool:
        return self.begin == other.begin and self.kept is other.kept


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows [begin, end) that attend to the first `keys` of what is laid side by side, the last `padding` of them zeros.

    `mask` is added to the scores of the block's own rows and the padding, which stand last. `new` is what the block
    before did not lay: parts and where they begin.
    """

    begin: int
    end: int
    keys: int
    padding: int
    new: tuple[tuple[_Part, int], ...]
    mask: torch.Tensor

    def lay_side_by_side(self, layer: int, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor) -> None:
        """Into `seen` [2, key-value heads, keys, size]."""
        for part, at in self.new:
            room = seen[:, :, at : at + part.end - part.begin]
            if part.kept is None:
                room[0].copy_(key[:, part.begin : part.end])
                room[1].copy_(value[:, part.begin : part.end])
            else:
                room.copy_(part.kept[layer, :, :, part.begin : part.end])
        seen[:, :, self.keys - self.padding : self.keys].zero_()


def _blocks(plan: Plan) -> list[_Block]:
    return _blocks_of(plan, across=True)


def _segments(plan: Plan) -> list[_Block]:
    """Blocks that hold rows of one segment each. A key that is masked has weight 0, and 0 times NaN is NaN in every row
    of its block, as is a score of inf that is masked; so where these occur, a row shares its block with those only that
    share its fate."""
    return _blocks_of(plan, across=False)


def _blocks_of(plan: Plan, *, across: bool) -> list[_Block]:
    last = torch.empty(plan.packed.rows, dtype=torch.long)
    for segment in plan.packed.segments:
        last[segment.begin : segment.end] = segment.subtree_end
    cuts = {row for kept in plan.kept for row in (kept.begin, kept.end)}
    blocks: list[_Block] = []
    before: list[_Part] = []
    for block in attention_blocks(plan.packed, _MOST_ROWS, across=across, cuts=cuts):
        parts = _parts(plan, block)
        blocks.append(_laid(block, parts, _shared(before, parts), last))
        before = parts
    return blocks


def _parts(plan: Plan, block: Block) -> list[_Part]:
    """All that the block sees."""
    kept = [kv for one in plan.kept if one.begin <= block.begin < one.end for kv in one.kvs]
    rows = joined(block.above, block.begin, block.end)
    return [*(_Part(0, kv.shape[3], kv) for kv in kept), *(_Part(begin, end) for begin, end in rows)]


def _shared(before: list[_Part], parts: list[_Part]) -> int:
    """How many keys both begin with."""
    shared = 0
    for one, other in zip(before, parts, strict=False):
        if not one.begins_as(other):
            break
        shared += min(one.end, other.end) - one.begin
        if one.end != other.end:
            break
    return shared


def _laid(block: Block, parts: list[_Part], shared: int, last: torch.Tensor) -> _Block:
    new, at = [], 0
    for part in parts:
        known = min(max(shared - at, 0), part.end - part.begin)
        if known < part.end - part.begin:
            new.append((_Part(part.begin + known, part.end, part.kept), at + known))
        at += part.end - part.begin
    rows = torch.arange(block.begin, block.end)
    sees = (rows <= rows[:, None]) & (rows[:, None] < last[block.begin : block.end])
    padding = -at % _KEYS_STEP
    mask = torch.full((len(rows), len(rows) + padding), float("-inf"))
    mask[:, : len(rows)].masked_fill_(sees, 0.0)
    return _Block(block.begin, block.end, at + padding, padding, tuple(new), mask)


# All three take q [key-value heads, groups, rows, size], k and v [key-value heads, keys, size], a mask for the last of
# the keys (-inf where one is not seen), and room [rows, key-value heads, groups, size] for what comes out.


def _mix(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, out: torch.Tensor
) -> None:
    work = q[0].numel() * k.shape[1]
    attention = _by_products if q.dtype == torch.float32 and work >= least_work() else _by_flash
    attention(q, k, v, mask, scale, out)


def _by_products(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, out: torch.Tensor
) -> None:
    queries = torch.mul(q, scale * math.log2(math.e), out=q.new_empty(q.shape)).flatten(1, 2)
    for head, rows in enumerate(queries):
        mixed = _mixed(rows, k[head], v[head], mask)
        out[:, head] = mixed.unflatten(0, q.shape[1:3]).transpose(0, 1)


def _mixed(rows: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The values [keys, size] by the softmax, of base 2, of rows [groups x rows, size] times keys [keys, size].

    Powers of the scores as they are take half the time of a softmax, which searches each row's largest first; that is
    needed where a sum of them leaves the range of float32 only.
    """
    powers = _scores(rows, k, mask).exp2_()
    sums = powers.sum(-1, keepdim=True)
    least, most = sums.aminmax()
    if least.item() > _SUMS[0] and most.item() < _SUMS[1]:
        return product(powers, v.t()).div_(sums)
    return product(torch.softmax(_scores(rows, k, mask).mul_(math.log(2.0)), -1), v.t())


def _scores(rows: torch.Tensor, k: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    scores = product(rows, k)
    scores.unflatten(0, (-1, mask.shape[0]))[..., -mask.shape[1] :].add_(mask)
    return scores


def _by_flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, out: torch.Tensor
) -> None:
    k, v = (tensor.unsqueeze(1).expand(-1, q.shape[1], -1, -1) for tensor in (k, v))
    whole = torch.nn.functional.pad(mask.to(q.dtype), (k.shape[2] - mask.shape[1], 0))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=whole, scale=scale)
    out.copy_(mixed.permute(2, 0, 1, 3))

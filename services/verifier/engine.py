"""The trie engine: match what is known, pack what is new, run it once, read the scores. No queue, no family.

Blocking and not thread-safe: one worker thread calls it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.core.errors import ModelLoadError
from services.verifier.families.base import Encoded
from services.verifier.forward import packed_forward
from services.verifier.head import Head
from services.verifier.plan import Kept, Plan
from services.verifier.prefix_cache import Match, Node, PrefixCache
from services.verifier.trie import Packed, key_of, pack, part_of


@dataclass(frozen=True, slots=True)
class RowScores:
    """The probabilities at the read-out rows of one sequence, in order; may hold NaN, which the caller must refuse.

    `computed` counts the tokens that went through the model on its behalf: tokens that sequences of a batch share are
    counted for one of them, tokens that were known for none.
    """

    values: tuple[float, ...]
    computed: int


class DeviceOutOfMemory(Exception):
    """A forward pass did not fit the device. Nothing was scored; smaller batches may fit."""


class TrieEngine:
    """Scores batches of token sequences with one decoder and one head, every distinct token once."""

    def __init__(self, body: Any, head: Head, cache_bytes: int) -> None:
        """`body` was loaded with the attention of this package. Raises `ModelLoadError` when it does not use it."""
        self._body = body
        self._head = head
        self._cache = PrefixCache(cache_bytes)
        self._layout = _layout_of(body, head)

    @property
    def cached_bytes(self) -> int:
        """Bytes of keys and values that are kept."""
        return self._cache.nbytes

    def forget(self) -> None:
        """Drop what is kept, and give the device's memory back."""
        self._cache.clear()
        if self._head.device.type == "cuda":
            torch.cuda.empty_cache()

    def score(self, batch: Sequence[Encoded]) -> list[RowScores]:
        """Scores of each sequence, in order. Raises `DeviceOutOfMemory`."""
        try:
            return self._score(batch)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        raise DeviceOutOfMemory  # here, where the failed pass's tensors are no longer held by its traceback

    def _score(self, batch: Sequence[Encoded]) -> list[RowScores]:
        keys = [encoded.key for encoded in batch]
        matches = self._cache.match(keys, [encoded.rows for encoded in batch])
        packed = pack(keys, [match.tokens for match in matches])
        read = self._forward(batch, keys, matches, packed) if packed.rows else {}
        return [
            RowScores(tuple(_value(packed, read, place, match, row) for row in encoded.rows), computed)
            for place, (encoded, match, computed) in enumerate(zip(batch, matches, packed.computed(), strict=True))
        ]

    def _forward(
        self, batch: Sequence[Encoded], keys: Sequence[bytes], matches: Sequence[Match], packed: Packed
    ) -> dict[int, float]:
        """Run the packed rows; the probability at each row that is read."""
        rows = sorted(
            {
                packed.row(place, row)
                for place, (encoded, match) in enumerate(zip(batch, matches, strict=True))
                for row in encoded.rows
                if row >= match.tokens
            }
        )
        stores = self._stores(packed)
        slices = [(packed.segments[place].begin, packed.segments[place].end, kv) for place, kv in stores.items()]
        plan = Plan(packed, _kept(packed, matches), slices)
        values = packed_forward(self._body, self._head, *_tokens(batch, packed), rows, plan)
        read = dict(zip(rows, values.tolist(), strict=True))
        self._keep(keys, matches, packed, stores, read)
        return read

    def _stores(self, packed: Packed) -> dict[int, torch.Tensor]:
        """Room for the keys and values of the segments that the cache will hold: shared ones first, parents first."""
        layers, heads, size, dtype, device = self._layout
        token_bytes = layers * 2 * heads * size * dtype.itemsize
        room = self._cache.make_room(packed.rows * token_bytes)
        stores: dict[int, torch.Tensor] = {}
        for place in sorted(range(len(packed.segments)), key=lambda place: not packed.segments[place].shared):
            segment = packed.segments[place]
            tokens = segment.end - segment.begin
            if tokens * token_bytes <= room and segment.parent in (None, *stores):
                stores[place] = torch.empty(layers, 2, heads, tokens, size, dtype=dtype, device=device)
                room -= tokens * token_bytes
        return stores

    def _keep(
        self,
        keys: Sequence[bytes],
        matches: Sequence[Match],
        packed: Packed,
        stores: dict[int, torch.Tensor],
        read: dict[int, float],
    ) -> None:
        nodes: dict[int, Node] = {}
        sound = _sound(stores)
        for place in sorted(stores):
            segment, owner = packed.segments[place], packed.owners[place]
            scores = {row - segment.begin: read[row] for row in range(segment.begin, segment.end) if row in read}
            # NaN is kept nowhere: what made it may be of the moment, and others share what stands before it.
            spoilt = place not in sound or any(map(math.isnan, scores.values()))
            if spoilt or (segment.parent is not None and segment.parent not in nodes):
                continue
            above = matches[owner].nodes[-1] if segment.parent is None and matches[owner].nodes else None
            parent = above if segment.parent is None else nodes[segment.parent]
            key = part_of(keys[owner], segment.depth, segment.depth + segment.end - segment.begin)
            nodes[place] = self._cache.insert(parent, key, stores[place], scores)


# torch has a class of its own for its CUDA allocator; the CPU's, CUDA's own and cuBLAS's say it in words.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in str(error) for part in _OUT_OF_MEMORY)


def _sound(stores: dict[int, torch.Tensor]) -> set[int]:
    """The places whose keys and values are finite. The last layer's tell: a row that is none stays so from there on."""
    if not stores:
        return set()
    finite = torch.stack([torch.isfinite(kv[-1]).all() for kv in stores.values()]).tolist()
    return {place for place, is_finite in zip(stores, finite, strict=True) if is_finite}


def _value(packed: Packed, read: dict[int, float], place: int, match: Match, row: int) -> float:
    return match.scores[row] if row < match.tokens else read[packed.row(place, row)]


def _tokens(batch: Sequence[Encoded], packed: Packed) -> tuple[list[int], list[int]]:
    """Ids and positions of the packed rows."""
    ids: list[int] = []
    positions: list[int] = []
    for segment, owner in zip(packed.segments, packed.owners, strict=True):
        end = segment.depth + segment.end - segment.begin
        ids += batch[owner].ids[segment.depth : end]
        positions += range(segment.depth, end)
    return ids, positions


def _kept(packed: Packed, matches: Sequence[Match]) -> list[Kept]:
    """The known nodes with the rows that see them. Nodes that the same rows see are on one path."""
    seen_by: dict[Node, tuple[int, int]] = {}
    for place, match in enumerate(matches):
        begin, end = packed.span(place)
        if begin == end:
            continue
        for node in match.nodes:
            low, high = seen_by.get(node, (begin, end))
            seen_by[node] = (min(low, begin), max(high, end))
    together: dict[tuple[int, int], list[torch.Tensor]] = {}
    for node, span in seen_by.items():
        together.setdefault(span, []).append(node.kv)
    return [Kept(tuple(kvs), begin, end) for (begin, end), kvs in together.items()]


_Layout = tuple[int, int, int, torch.dtype, torch.device]


class _Probe(Plan):
    """A plan of one row that records what the model's layers hand to the attention."""

    def __init__(self) -> None:
        super().__init__(pack([key_of([0])]), (), ())
        self.seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        self.seen[layer] = (key, value)


def _layout_of(body: Any, head: Head) -> _Layout:
    """Layers, key-value heads and their size, dtype and device, as the model's own layers show them."""
    probe = _Probe()
    mend = ModelLoadError(
        "the model's attention layers cannot be packed", "serve a decoder whose layers are all alike, as Llama or Qwen"
    )
    try:
        packed_forward(body, head, [0], [0], [], probe)
    except (TypeError, ValueError) as error:
        raise mend from error
    layers = body.config.num_hidden_layers
    shapes = {tensor.shape for pair in probe.seen.values() for tensor in pair}
    if sorted(probe.seen) != list(range(layers)) or len(shapes) != 1:
        raise mend
    key = probe.seen[0][0]
    return layers, key.shape[0], key.shape[2], key.dtype, key.device

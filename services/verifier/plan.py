"""What one forward pass over a packed trie attends to, the same in every layer. How it attends is for each device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from services.verifier.trie import Packed

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Kept:
    """Keys and values from before: `kvs` follow one another on a path and are seen by the rows [begin, end).

    Each is [layers, 2, key-value heads, tokens, head size].
    """

    kvs: tuple[torch.Tensor, ...]
    begin: int
    end: int

    @property
    def tokens(self) -> int:
        """Keys that each of the rows sees."""
        return sum(kv.shape[3] for kv in self.kvs)


class Plan:
    """The rows of a pass, the keys and values from before, and those that it hands out."""

    def __init__(self, packed: Packed, kept: Sequence[Kept], stores: Sequence[tuple[int, int, torch.Tensor]]) -> None:
        """`stores`: (begin, end, tensor) of the row slices whose keys and values are copied into the tensor."""
        self.packed = packed
        self.kept = tuple(kept)
        self.stores = tuple(stores)
        self._made: dict[Any, Any] = {}

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Copy the rows of `key` and `value` [key-value heads, rows, head size] to where they are wanted."""
        for begin, end, tensor in self.stores:
            tensor[layer, 0].copy_(key[:, begin:end])
            tensor[layer, 1].copy_(value[:, begin:end])

    def once(self, make: Callable[["Plan"], _Made]) -> _Made:
        """What `make` makes of this plan; made once, for the first layer that asks."""
        if make not in self._made:
            self._made[make] = make(self)
        made: _Made = self._made[make]
        return made

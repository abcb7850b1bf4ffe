"""Keys and values of what the model has read before, by prefix, least recently used out first. One thread's own.

A radix trie whose nodes hold the keys and values of a run of tokens and the scores that were read at them. Step search
and repeated problems find their prefixes here, and a batch costs its new tokens only.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from services.verifier.trie import length_of, part_of, shared_length


class Node:
    """A run of tokens below `parent`. `kv` is [layers, 2, key-value heads, tokens, head size]."""

    __slots__ = ("children", "key", "kv", "parent", "scores", "used")

    def __init__(self, key: bytes, kv: torch.Tensor, scores: dict[int, float], parent: "Node | None") -> None:
        self.key = key
        self.kv = kv
        self.scores = scores  # by place in the run
        self.parent = parent
        self.children: dict[bytes, Node] = {}
        self.used = 0

    @property
    def nbytes(self) -> int:
        return self.kv.numel() * self.kv.element_size()


@dataclass(frozen=True)
class Match:
    """The longest known prefix of a sequence: `nodes` from the top, `tokens` in all of them."""

    nodes: tuple[Node, ...]
    tokens: int

    @cached_property
    def scores(self) -> dict[int, float]:
        """What was read at known positions, by position in the sequence."""
        found: dict[int, float] = {}
        begin = 0
        for node in self.nodes:
            found.update((begin + place, score) for place, score in node.scores.items())
            begin += length_of(node.key)
        return found


class PrefixCache:
    """A trie of nodes of at most `max_bytes`. With 0 it keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._roots: dict[bytes, Node] = {}
        self._clock = 0

    def match(self, keys: Sequence[bytes], rows: Sequence[Sequence[int]]) -> list[Match]:
        """The longest known prefix of each sequence whose scores at `rows` are known too.

        A node that ends inside a sequence's continuation is split, so that a match is a list of whole nodes.
        """
        self._clock += 1
        if self.max_bytes == 0:
            return [Match((), 0)] * len(keys)
        # First what must be computed again is dropped and nodes are split, then all look: sequences that share a prefix
        # agree about it, and no node of a match is split any more.
        for key, wanted in zip(keys, rows, strict=True):
            self._drop_unread(key, wanted)
        return [self._descend(key) for key in keys]

    def make_room(self, nbytes: int) -> int:
        """Drop leaves that the last `match` did not name, least recently used first, until `nbytes` more fit.

        Returns how many bytes more do fit, which is less where the rest is in use.
        """
        if self.nbytes + nbytes > self.max_bytes:
            # Somewhat more than asked for: finding the oldest looks at every node, which not every batch should pay.
            self._drop_oldest(self.max_bytes - nbytes - self.max_bytes // 16)
        return max(0, self.max_bytes - self.nbytes)

    def _drop_oldest(self, limit: int) -> None:
        idle = [(node.used, id(node), node) for node in self._nodes() if self._is_idle_leaf(node)]
        heapq.heapify(idle)
        while idle and self.nbytes > limit:
            _, _, leaf = heapq.heappop(idle)
            self._drop(leaf)
            if leaf.parent is not None and self._is_idle_leaf(leaf.parent):
                heapq.heappush(idle, (leaf.parent.used, id(leaf.parent), leaf.parent))

    def insert(self, parent: Node | None, key: bytes, kv: torch.Tensor, scores: Mapping[int, float]) -> Node:
        """A new node below `parent`. The caller has made room."""
        node = Node(key, kv, dict(scores), parent)
        node.used = self._clock
        self._children(parent)[part_of(key, 0, 1)] = node
        self.nbytes += node.nbytes
        return node

    def clear(self) -> None:
        """Forget everything: after the device ran out of memory."""
        self._roots.clear()
        self.nbytes = 0

    def _is_idle_leaf(self, node: Node) -> bool:
        return not node.children and node.used < self._clock

    def _children(self, node: Node | None) -> dict[bytes, Node]:
        return self._roots if node is None else node.children

    def _nodes(self) -> Iterator[Node]:
        stack = list(self._roots.values())
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            yield node

    def _descend(self, key: bytes) -> Match:
        nodes: list[Node] = []
        begin, children = 0, self._roots
        while node := children.get(part_of(key, begin, begin + 1)):
            shared = shared_length(node.key, part_of(key, begin))
            if shared < length_of(node.key):
                self._split(node, shared)
            node.used = self._clock
            nodes.append(node)
            begin, children = begin + shared, node.children
        return Match(tuple(nodes), begin)

    def _split(self, node: Node, at: int) -> None:
        """`node` keeps its first `at` tokens; a new child has the rest and the children."""
        # Copies: a view would keep the whole alive when the other half is evicted.
        rest = Node(part_of(node.key, at), node.kv[..., at:, :].clone(), _shifted(node.scores, at), node)
        rest.used = node.used
        rest.children = node.children
        for child in rest.children.values():
            child.parent = rest
        node.key, node.kv = part_of(node.key, 0, at), node.kv[..., :at, :].clone()
        node.scores = {place: score for place, score in node.scores.items() if place < at}
        node.children = {part_of(rest.key, 0, 1): rest}

    def _drop_unread(self, key: bytes, wanted: Sequence[int]) -> None:
        """Forget from the first token on at which a score is wanted that was never read, with what stands below."""
        match = self._descend(key)
        known = match.scores
        missing = min((row for row in wanted if row < match.tokens and row not in known), default=None)
        if missing is None:
            return
        begin = 0
        for node in match.nodes:
            if missing < begin + length_of(node.key):
                self._drop_from(node, missing - begin)
                return
            begin += length_of(node.key)

    def _drop_from(self, node: Node, at: int) -> None:
        if at == 0:
            self._drop(node)
            return
        self._split(node, at)
        (rest,) = node.children.values()
        self._drop(rest)

    def _drop(self, node: Node) -> None:
        stack = [node]
        while stack:
            one = stack.pop()
            stack.extend(one.children.values())
            self.nbytes -= one.nbytes
        del self._children(node.parent)[part_of(node.key, 0, 1)]


def _shifted(scores: Mapping[int, float], by: int) -> dict[int, float]:
    return {place - by: score for place, score in scores.items() if place >= by}

"""Sequences that share prefixes, packed so that every distinct token stands once. Pure: no torch, no clock.

A radix forest over token ids, laid out depth first: every subtree is one slice of rows. Prefixes are shared by ids,
never by text: tokenised step by step or whole, ids differ at almost every joint for some tokenizers.
"""

from array import array
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

_BYTES = 4


def key_of(ids: Sequence[int]) -> bytes:
    """The ids as bytes, four a token: compared and sliced at the speed of memcmp."""
    return array("I", ids).tobytes()


def length_of(key: bytes) -> int:
    """Tokens of a key."""
    return len(key) // _BYTES


def part_of(key: bytes, begin: int, end: int | None = None) -> bytes:
    """The key of the tokens [begin, end)."""
    return key[begin * _BYTES : None if end is None else end * _BYTES]


def shared_length(one: bytes, other: bytes, begin: int = 0) -> int:
    """Leading tokens that two keys share, given that the first `begin` are the same."""
    low, high = begin, min(length_of(one), length_of(other))
    if part_of(one, low, high) == part_of(other, low, high):
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if part_of(one, low, middle) == part_of(other, low, middle):
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens that no sequence leaves or enters in the middle.

    It stands in the rows [begin, end); the rows [end, subtree_end) are its descendants; `depth` is the position of its
    first token; `parent` is the segment above it in this packing (by place), None where there is none.
    """

    begin: int
    end: int
    subtree_end: int
    depth: int
    parent: int | None

    @property
    def shared(self) -> bool:
        """Whether rows of other segments attend to this one."""
        return self.subtree_end > self.end


@dataclass(frozen=True, slots=True)
class Packed:
    """The trie of some sequences.

    `owners[s]` is a sequence that has the tokens of segment s; `paths[i]` are the segments of sequence i from the top,
    none where all of it was known.
    """

    segments: tuple[Segment, ...]
    owners: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        return self.segments[-1].end if self.segments else 0

    def row(self, sequence: int, position: int) -> int:
        """The row at which the token at `position` of `sequence` stands. Raises `KeyError` for a known position."""
        path = self.paths[sequence]
        at = bisect_right(path, position, key=lambda place: self.segments[place].depth) - 1
        if at >= 0:
            segment = self.segments[path[at]]
            if position < segment.depth + segment.end - segment.begin:
                return segment.begin + position - segment.depth
        raise KeyError(position)

    def span(self, sequence: int) -> tuple[int, int]:
        """The rows of the topmost subtree that holds the sequence; (0, 0) where all of it was known."""
        if not self.paths[sequence]:
            return (0, 0)
        top = self.segments[self.paths[sequence][0]]
        return (top.begin, top.subtree_end)

    def computed(self) -> list[int]:
        """Rows by the sequence they are counted for: a shared row counts once, for the first in key order."""
        counts = [0] * len(self.paths)
        for segment, owner in zip(self.segments, self.owners, strict=True):
            counts[owner] += segment.end - segment.begin
        return counts


def pack(keys: Sequence[bytes], known: Sequence[int] | None = None) -> Packed:
    """The trie of `keys`, without the first `known[i]` tokens of sequence i, which have been computed before.

    Sequences that share more than what is known of one must have the same known length; so it is where `known` is the
    longest match with any one set of prefixes.
    """
    return _Packer(keys, known or [0] * len(keys)).run()


@dataclass(slots=True)
class _Open:
    """A range of the sorted sequences that share their first `depth` tokens, still to be laid out below `parent`."""

    sequences: list[int]
    depth: int
    parent: int | None


class _Packer:
    def __init__(self, keys: Sequence[bytes], known: Sequence[int]) -> None:
        self._keys = keys
        self._known = known
        self._segments: list[tuple[int, int, int, int | None]] = []
        self._owners: list[int] = []
        self._paths: list[list[int]] = [[] for _ in keys]
        self._rows = 0

    def run(self) -> Packed:
        every = sorted(range(len(self._keys)), key=self._keys.__getitem__)
        # An explicit stack: a hostile batch nests as deep as it has solutions.
        stack = [_Open(every, 0, None)] if every else []
        while stack:
            stack.extend(reversed(self._lay_out(stack.pop())))
        return Packed(self._with_subtrees(), tuple(self._owners), tuple(tuple(path) for path in self._paths))

    def _lay_out(self, branch: _Open) -> list[_Open]:
        """Place what all of the branch share as one segment; the branches that part below it."""
        first, last = branch.sequences[0], branch.sequences[-1]
        end = shared_length(self._keys[first], self._keys[last], branch.depth)
        begin = max(branch.depth, min(self._known[first], end))
        parent = branch.parent
        if begin < end:
            parent = self._add(branch, begin, end)
        # What ends here sorts before what goes on.
        longer = [i for i in branch.sequences if length_of(self._keys[i]) > end]
        parts = groupby(longer, key=lambda i: part_of(self._keys[i], end, end + 1))
        return [_Open(list(group), end, parent) for _, group in parts]

    def _add(self, branch: _Open, begin: int, end: int) -> int:
        place = len(self._segments)
        self._segments.append((self._rows, self._rows + end - begin, begin, branch.parent))
        self._owners.append(branch.sequences[0])
        for sequence in branch.sequences:
            self._paths[sequence].append(place)
        self._rows += end - begin
        return place

    def _with_subtrees(self) -> tuple[Segment, ...]:
        ends = [end for _, end, _, _ in self._segments]
        for place in range(len(self._segments) - 1, -1, -1):
            parent = self._segments[place][3]
            if parent is not None:
                ends[parent] = max(ends[parent], ends[place])
        return tuple(
            Segment(begin, end, subtree, depth, parent)
            for (begin, end, depth, parent), subtree in zip(self._segments, ends, strict=True)
        )


Slices = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """The rows [begin, end), which attend at once: to all rows of the slices in `above`, and to their ancestors among
    themselves."""

    begin: int
    end: int
    above: Slices


def attention_blocks(packed: Packed, most: int, *, across: bool, cuts: Collection[int] = ()) -> list[Block]:
    """The rows in blocks of at most `most`, in order.

    A longer segment is parted evenly. With `across`, segments that follow one another below the same ancestors make one
    block as long as they fit, because small products are slow; but no segment that begins at a row of `cuts` is added.
    """
    blocks: list[Block] = []
    above = _ancestors(packed)
    place = 0
    while place < len(packed.segments):
        last = _last_that_fits(packed, place, most, cuts) if across else place
        first, stop = packed.segments[place].begin, packed.segments[last].end
        pieces = -(-(stop - first) // most)
        bounds = [first + (stop - first) * piece // pieces for piece in range(pieces + 1)]
        blocks += [Block(begin, end, joined(above[place], first, begin)) for begin, end in pairwise(bounds)]
        place = last + 1
    return blocks


def _ancestors(packed: Packed) -> list[Slices]:
    """The rows above each segment."""
    above: list[Slices] = []
    for segment in packed.segments:
        if segment.parent is None:
            above.append(())
        else:
            parent = packed.segments[segment.parent]
            above.append(joined(above[segment.parent], parent.begin, parent.end))
    return above


def joined(slices: Slices, begin: int, end: int) -> Slices:
    """With one more slice, which may go on where the last one ends."""
    if begin == end:
        return slices
    if slices and slices[-1][1] == begin:
        return (*slices[:-1], (slices[-1][0], end))
    return (*slices, (begin, end))


def _last_that_fits(packed: Packed, place: int, most: int, cuts: Collection[int]) -> int:
    """The last segment (by place) of the block that begins with this one."""
    segments, first = packed.segments, packed.segments[place]
    limit = packed.rows if first.parent is None else segments[first.parent].subtree_end
    limit = min(limit, first.begin + most)
    while place + 1 < len(segments) and segments[place + 1].end <= limit and segments[place + 1].begin not in cuts:
        place += 1
    return place

"""The trie: every distinct token stands once, every row sees its ancestors and nothing else."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.batching import TrieTokens
from services.verifier.trie import Packed, attention_blocks, key_of, length_of, pack, part_of, shared_length

# Few different tokens, so that prefixes are shared; some large, so that bytes and numbers order differently.
sequence = st.lists(st.sampled_from([1, 2, 256, 70_000]), min_size=1, max_size=12).map(tuple)
sequences = st.lists(sequence, min_size=1, max_size=12)


def prefixes(some: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {one[:end] for one in some for end in range(1, len(one) + 1)}


def packed_of(some: list[tuple[int, ...]], known: list[int] | None = None) -> Packed:
    return pack([key_of(one) for one in some], known)


def row_prefixes(some: list[tuple[int, ...]], packed: Packed) -> list[tuple[int, ...]]:
    """The prefix that each row stands for."""
    found = []
    for segment, owner in zip(packed.segments, packed.owners, strict=True):
        found += [some[owner][: segment.depth + place + 1] for place in range(segment.end - segment.begin)]
    return found


@given(sequence, sequence)
def test_the_shared_length_of_two_keys_is_that_of_their_tokens(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    expected = next((n for n in range(min(len(one), len(other))) if one[n] != other[n]), min(len(one), len(other)))
    for begin in range(expected + 1):
        assert shared_length(key_of(one), key_of(other), begin) == expected
    assert length_of(part_of(key_of(one), 0, expected)) == expected


@given(sequences)
def test_every_distinct_prefix_is_one_row(some: list[tuple[int, ...]]) -> None:
    rows = row_prefixes(some, packed_of(some))
    assert len(rows) == len(set(rows))
    assert set(rows) == prefixes(some)


@given(sequences)
def test_rows_are_counted_without_packing(some: list[tuple[int, ...]]) -> None:
    tokens = TrieTokens()
    for one in some:
        grown = tokens.added_by(key_of(one))
        tokens.add(key_of(one))
        assert grown >= 0
    assert tokens.total == len(prefixes(some)) == packed_of(some).rows


@given(sequences)
def test_a_row_is_found_by_sequence_and_position(some: list[tuple[int, ...]]) -> None:
    packed = packed_of(some)
    rows = row_prefixes(some, packed)
    for place, one in enumerate(some):
        for position in range(len(one)):
            assert rows[packed.row(place, position)] == one[: position + 1]
        with pytest.raises(KeyError):
            packed.row(place, len(one))


@given(sequences)
def test_shared_rows_are_counted_for_one_sequence(some: list[tuple[int, ...]]) -> None:
    packed = packed_of(some)
    assert sum(packed.computed()) == packed.rows
    assert all(0 <= count <= len(one) for count, one in zip(packed.computed(), some, strict=True))


def ancestors(some: list[tuple[int, ...]], packed: Packed) -> list[set[int]]:
    """For each row, the rows that it must see: itself too."""
    rows = row_prefixes(some, packed)
    place = {prefix: row for row, prefix in enumerate(rows)}
    return [{place[prefix[:end]] for end in range(1, len(prefix) + 1)} for prefix in rows]


@given(sequences, st.integers(1, 14), st.booleans(), st.sets(st.integers(0, 50)))
def test_blocks_hold_each_row_once_in_order_with_all_that_it_sees(
    some: list[tuple[int, ...]], most: int, across: bool, cuts: set[int]
) -> None:
    packed = packed_of(some)
    blocks = attention_blocks(packed, most, across=across, cuts=cuts)
    assert [row for block in blocks for row in range(block.begin, block.end)] == list(range(packed.rows))
    required = ancestors(some, packed)
    for block in blocks:
        above = [row for begin, end in block.above for row in range(begin, end)]
        assert len(above) == len(set(above))
        for row in range(block.begin, block.end):
            assert required[row] - set(range(block.begin, row + 1)) == set(above)


@given(sequences, st.integers(1, 14), st.booleans(), st.sets(st.integers(0, 50)))
def test_blocks_are_no_larger_than_they_may_be(
    some: list[tuple[int, ...]], most: int, across: bool, cuts: set[int]
) -> None:
    packed = packed_of(some)
    begins = {segment.begin for segment in packed.segments}
    for block in attention_blocks(packed, most, across=across, cuts=cuts):
        held = begins & set(range(block.begin + 1, block.end))
        assert block.end - block.begin <= most
        assert not held & cuts
        assert across or not held


@given(sequences, st.integers(1, 14), st.sets(st.integers(0, 50)))
def test_a_block_is_left_off_only_where_it_has_to_be(some: list[tuple[int, ...]], most: int, cuts: set[int]) -> None:
    packed = packed_of(some)
    begins = {segment.begin: segment for segment in packed.segments}
    for block, following in pairwise(attention_blocks(packed, most, across=True, cuts=cuts)):
        first = begins.get(block.begin)
        added = begins.get(following.begin)
        if first is None or added is None or added.begin in cuts:
            continue
        below = packed.rows if first.parent is None else packed.segments[first.parent].subtree_end
        assert added.end > below or added.end - block.begin > most


def test_a_long_segment_is_parted_evenly_and_short_ones_below_one_parent_are_taken_together() -> None:
    prompt, long = tuple(range(100, 110)), tuple(range(200, 225))
    some = [(*prompt, 1, 1, 1, 1), (*prompt, 2, 2, 2), (*prompt, 3, 3, 3, 3, 3), (*prompt, *long)]
    blocks = attention_blocks(packed_of(some), most=10, across=True)
    spans = [(block.begin, block.end) for block in blocks]
    assert spans == [(0, 10), (10, 17), (17, 22), (22, 30), (30, 38), (38, 47)]
    assert [block.above for block in blocks] == [(), *[((0, 10),)] * 3, ((0, 10), (22, 30)), ((0, 10), (22, 38))]


@given(sequences)
def test_a_subtree_is_one_slice(some: list[tuple[int, ...]]) -> None:
    packed = packed_of(some)
    rows = row_prefixes(some, packed)
    for segment in packed.segments:
        top = rows[segment.end - 1]
        below = [row for row, prefix in enumerate(rows) if len(prefix) > len(top) and prefix[: len(top)] == top]
        assert below == list(range(segment.end, segment.subtree_end))


@given(sequences, st.data())
def test_what_is_known_is_not_laid_out(some: list[tuple[int, ...]], data: st.DataObject) -> None:
    kept = prefixes(data.draw(st.lists(st.sampled_from(some), max_size=3)))
    known = [max((n for n in range(len(one) + 1) if one[:n] in kept), default=0) for one in some]
    packed = packed_of(some, known)
    assert set(row_prefixes(some, packed)) == prefixes(some) - kept
    for place, (one, start) in enumerate(zip(some, known, strict=True)):
        assert [len(row_prefixes(some, packed)[packed.row(place, n)]) for n in range(start, len(one))] == list(
            range(start + 1, len(one) + 1)
        )
        begin, end = packed.span(place)
        assert (begin == end) == (start == len(one))


def test_a_hostile_nest_of_prefixes_is_packed_without_recursion() -> None:
    some = [tuple(range(length)) for length in range(1, 3000)]
    assert packed_of(some).rows == 2999


def test_nothing_packs_to_nothing() -> None:
    assert pack([]).rows == 0
    assert packed_of([(1, 2)], [2]).rows == 0

"""The trie: every distinct token stands once, every row sees its ancestors and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.batching import TrieTokens
from services.verifier.trie import Packed, attention_calls, key_of, length_of, pack, part_of, shared_length

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


def seen(packed: Packed, fold_below: int) -> list[list[int]]:
    """For each row, the rows whose keys its query meets, with repetitions."""
    causal, cross = attention_calls(packed, fold_below)
    met: list[list[int]] = [[] for _ in range(packed.rows)]
    for one in causal:
        run = [row for begin, end in one.rows for row in range(begin, end)]
        begin, end = one.rows[-1]
        for row in range(begin, end):
            met[row] += run[: run.index(row) + 1]
    for call in cross:
        for row in range(call.begin, call.end):
            met[row] += [key for begin, end in call.keys for key in range(begin, end)]
    return met


@given(sequences, st.integers(1, 14))
def test_each_row_meets_its_ancestors_and_itself_exactly_once(some: list[tuple[int, ...]], fold_below: int) -> None:
    packed = packed_of(some)
    rows = row_prefixes(some, packed)
    place = {prefix: row for row, prefix in enumerate(rows)}
    for row, met in enumerate(seen(packed, fold_below)):
        ancestors = sorted(place[rows[row][:end]] for end in range(1, len(rows[row]) + 1))
        assert sorted(met) == ancestors


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

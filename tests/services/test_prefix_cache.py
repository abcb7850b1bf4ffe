"""What is kept of prefixes: found again, split where paths part, bounded in bytes, least recently used out first."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.prefix_cache import Match, PrefixCache
from services.verifier.trie import key_of, length_of, part_of

TOKEN_BYTES = 2 * 4  # one layer, keys and values, one head of size one, float32
PLENTY = 1 << 20


def kv_of(ids: Sequence[int]) -> torch.Tensor:
    """Keys that say which token they are of, values its opposite."""
    tokens = torch.tensor(ids, dtype=torch.float32)
    return torch.stack([tokens, -tokens]).reshape(1, 2, 1, len(ids), 1)


def learn(cache: PrefixCache, *sequences: tuple[int, ...]) -> None:
    """What an engine does after each forward pass; the score at a token is its id."""
    for ids in sequences:
        match = cache.match([key_of(ids)], [[]])[0]
        new = ids[match.tokens :]
        if new and cache.make_room(len(new) * TOKEN_BYTES) >= len(new) * TOKEN_BYTES:
            parent = match.nodes[-1] if match.nodes else None
            cache.insert(parent, key_of(new), kv_of(new), {place: float(token) for place, token in enumerate(new)})


def look(cache: PrefixCache, ids: tuple[int, ...], rows: Sequence[int] = ()) -> Match:
    return cache.match([key_of(ids)], [rows])[0]


def kept_ids(match: Match) -> list[float]:
    return [value for node in match.nodes for value in node.kv[0, 0, 0, :, 0].tolist()]


sequence = st.lists(st.integers(1, 3), min_size=1, max_size=10).map(tuple)


@given(st.lists(sequence, min_size=1, max_size=8), sequence)
def test_the_longest_known_prefix_is_found_with_its_keys_and_scores(
    some: list[tuple[int, ...]], asked: tuple[int, ...]
) -> None:
    cache = PrefixCache(PLENTY)
    learn(cache, *some)
    match = look(cache, asked)
    known = {one[:end] for one in some for end in range(1, len(one) + 1)}
    assert match.tokens == max((end for end in range(1, len(asked) + 1) if asked[:end] in known), default=0)
    assert kept_ids(match) == list(asked[: match.tokens])
    assert match.scores == {place: float(asked[place]) for place in range(match.tokens)}
    assert all(node.kv.shape[3] == length_of(node.key) for node in match.nodes)


@given(st.lists(sequence, min_size=1, max_size=8))
def test_a_prefix_is_kept_once(some: list[tuple[int, ...]]) -> None:
    cache = PrefixCache(PLENTY)
    learn(cache, *some, *some)
    assert cache.nbytes == TOKEN_BYTES * len({one[:end] for one in some for end in range(1, len(one) + 1)})


@given(st.lists(sequence, min_size=1, max_size=12), st.integers(0, 20))
def test_it_never_holds_more_than_its_bound(some: list[tuple[int, ...]], tokens: int) -> None:
    cache = PrefixCache(tokens * TOKEN_BYTES)
    for one in some:
        learn(cache, one)
        assert 0 <= cache.nbytes <= tokens * TOKEN_BYTES


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache(6 * TOKEN_BYTES + 4)
    learn(cache, (1, 1, 1), (2, 2, 2))
    look(cache, (1, 1, 1))
    learn(cache, (3, 3, 3))
    assert [look(cache, (name,) * 3).tokens for name in (1, 2, 3)] == [3, 0, 3]


def test_a_parent_goes_after_its_last_child() -> None:
    cache = PrefixCache(6 * TOKEN_BYTES)
    learn(cache, (1, 1, 1, 5), (1, 1, 1, 6))
    learn(cache, (2, 2, 2, 2))
    assert look(cache, (2, 2, 2, 2)).tokens == 4
    assert cache.nbytes <= 6 * TOKEN_BYTES


def test_what_the_last_match_named_is_not_dropped() -> None:
    cache = PrefixCache(4 * TOKEN_BYTES)
    learn(cache, (1, 1, 1))
    match = look(cache, (1, 1, 1, 2))
    assert cache.make_room(3 * TOKEN_BYTES) == TOKEN_BYTES
    assert kept_ids(match) == [1.0, 1.0, 1.0]
    assert cache.nbytes == 3 * TOKEN_BYTES


def test_from_a_score_that_was_never_read_on_all_that_share_it_compute_again() -> None:
    cache = PrefixCache(PLENTY)
    cache.match([key_of((1, 2, 3, 4))], [[]])
    cache.insert(None, key_of((1, 2, 3, 4)), kv_of((1, 2, 3, 4)), {3: 0.5})
    assert look(cache, (1, 2, 3, 4), rows=[3]).tokens == 4
    wants, shares = cache.match([key_of((1, 2, 3, 4)), key_of((1, 2, 9))], [[1], []])
    assert (wants.tokens, shares.tokens) == (1, 1)
    assert cache.nbytes == TOKEN_BYTES


def test_halves_of_a_split_own_their_memory() -> None:
    cache = PrefixCache(PLENTY)
    learn(cache, (1, 2, 3, 4))
    match = look(cache, (1, 2, 9))
    assert match.tokens == 2
    assert match.nodes[0].kv.untyped_storage().nbytes() == 2 * TOKEN_BYTES


@pytest.mark.parametrize("max_bytes", [0, TOKEN_BYTES])
def test_with_no_room_nothing_is_kept(max_bytes: int) -> None:
    cache = PrefixCache(max_bytes)
    learn(cache, (1, 2, 3))
    assert look(cache, (1, 2, 3)).tokens == 0


def test_it_forgets_when_told() -> None:
    cache = PrefixCache(PLENTY)
    learn(cache, (1, 2, 3))
    cache.clear()
    assert (look(cache, (1, 2, 3)).tokens, cache.nbytes) == (0, 0)
    assert part_of(key_of((1, 2)), 1) == key_of((2,))

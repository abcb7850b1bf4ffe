"""One seed per sample: stable, distinct, in the range that engines take."""

from hypothesis import given
from hypothesis import strategies as st

from services.core.seeds import MAX_SEED, derive_seed

seeds = st.integers(0, MAX_SEED)


def test_the_seeds_of_known_samples_never_change() -> None:
    assert [derive_seed(7, i) for i in range(3)] == [
        1715198787237390053,
        5859785998774879018,
        1284207238298465877,
    ]


@given(seeds, st.integers(0, 1023))
def test_a_seed_fits_a_signed_64_bit_integer(seed: int, index: int) -> None:
    assert 0 <= derive_seed(seed, index) <= MAX_SEED


@given(seeds)
def test_the_samples_of_a_request_have_different_seeds(seed: int) -> None:
    assert len({derive_seed(seed, index) for index in range(1024)}) == 1024


@given(st.lists(seeds, min_size=2, max_size=20, unique=True))
def test_requests_with_different_seeds_share_no_sample(requests: list[int]) -> None:
    assert len({derive_seed(seed, 0) for seed in requests}) == len(requests)


def test_seed_and_index_are_not_confused() -> None:
    assert derive_seed(1, 11) != derive_seed(11, 1)
    assert derive_seed(1, 23) != derive_seed(12, 3)

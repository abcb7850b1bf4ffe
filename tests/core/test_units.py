"""Units: one reading for each spelling, sizes that convert, contradictions that stay."""

from fractions import Fraction

import pytest

from services.core.equivalence.units import compatible, read_unit, scaled_words


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param("cm", "centimeters", id="a name in full"),
        pytest.param("cm ^ 2", "square centimeters", id="a square"),
        pytest.param("cm ^ { 2 }", "sq. cm", id="a square cut short"),
        pytest.param("cubic feet", "ft ^ 3", id="a cube"),
        pytest.param("meters squared", "m ^ 2", id="a square after its unit"),
        pytest.param("m / s", "meters per second", id="a rate"),
        pytest.param("miles per hour", "mph", id="a rate with a name"),
        pytest.param("inches", "inch", id="a plural"),
        pytest.param("$", "dollars", id="money"),
    ],
)
def test_spellings_of_a_unit_have_one_key(a: str, b: str) -> None:
    one, other = read_unit(a), read_unit(b)
    assert one is not None
    assert other is not None
    assert one.key == other.key


@pytest.mark.parametrize(
    ("a", "b", "size"),
    [
        pytest.param("m", "cm", Fraction(100), id="lengths"),
        pytest.param("m ^ 2", "cm ^ 2", Fraction(10_000), id="areas"),
        pytest.param("hours", "minutes", Fraction(60), id="times"),
        pytest.param("km / h", "m / s", Fraction(10, 36), id="speeds"),
        pytest.param("cm", "cm ^ 2", None, id="a length is no area"),
        pytest.param("cm", "seconds", None, id="a length is no time"),
        pytest.param("apples", "oranges", None, id="words that differ"),
        pytest.param("red apples", "apples", Fraction(1), id="words that share one"),
        pytest.param("square units", "cm", Fraction(1), id="a unit that is none"),
    ],
)
def test_units_convert_within_their_dimension(a: str, b: str, size: Fraction | None) -> None:
    assert compatible(read_unit(a), read_unit(b)) == size


def test_a_million_counts() -> None:
    assert scaled_words("million dollars") == (10**6, "dollars")
    assert scaled_words("dollars") == (1, "dollars")

"""Which answers are the same: an equivalence relation, exact on numbers, bounded on hostile text."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.equivalence import canonical_key, equivalent

answers = st.one_of(
    st.sampled_from(
        ["1/2", "0.5", ".5", "\\frac{1}{2}", "\\frac12", "5e-1", "-1/2", "-0.5", "0", "-0", "1", "01", "x"]
    ),
    st.text("0123456789.-+/\\frac{}e, x", max_size=12),
    st.text(max_size=8),
)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param("42", "42", id="the same text"),
        pytest.param("42", " $42$. ", id="dressed"),
        pytest.param("1/2", "0.5", id="a fraction and a decimal"),
        pytest.param("1/2", "\\dfrac{1}{2}", id="a fraction and its LaTeX"),
        pytest.param("\\frac12", "2/4", id="reduced"),
        pytest.param("-\\frac{1}{2}", "\\frac{-1}{2}", id="where the sign stands"),
        pytest.param("0.10", ".1", id="zeros that say nothing"),
        pytest.param("1,000", "1e3", id="thousands and an exponent"),
        pytest.param("-0", "0", id="minus zero"),
        pytest.param("+3", "3", id="a plus sign"),
        pytest.param("Yes", "yes", id="a word in another case"),
    ],
)
def test_equal_answers_are_equivalent(a: str, b: str) -> None:
    assert equivalent(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param("1", "-1", id="signs"),
        pytest.param("0.333", "1/3", id="a rounded decimal is not the fraction"),
        pytest.param("12", "1/2", id="a lost slash"),
        pytest.param("\\frac{1}{2}", "\\frac{2}{1}", id="upside down"),
        pytest.param("(1,2)", "(2,1)", id="the order of a pair"),
        pytest.param("x", "X", id="the case of a letter"),
        pytest.param("1/0", "2/0", id="no number is infinite"),
        pytest.param("9" * 300, "9" * 301, id="long numerals"),
    ],
)
def test_different_answers_are_not(a: str, b: str) -> None:
    assert not equivalent(a, b)


@given(answers)
def test_an_answer_is_equivalent_to_itself(a: str) -> None:
    assert equivalent(a, a)


@given(answers, answers)
def test_the_order_of_two_answers_does_not_matter(a: str, b: str) -> None:
    assert equivalent(a, b) == equivalent(b, a)


@given(answers, answers, answers)
def test_answers_equal_to_the_same_answer_are_equal(a: str, b: str, c: str) -> None:
    assert not (equivalent(a, b) and equivalent(b, c)) or equivalent(a, c)


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**9), st.integers(1, 10**6))
def test_a_fraction_equals_itself_expanded_and_no_other(p: int, q: int, k: int) -> None:
    assert equivalent(f"{p}/{q}", f"{p * k}/{q * k}")
    assert not equivalent(f"{p}/{q}", f"{p + 1}/{q}")


@given(st.integers(-(10**12), 10**12), st.integers(0, 12))
def test_a_decimal_equals_its_fraction_exactly(units: int, places: int) -> None:
    sign, digits = "-" if units < 0 else "", str(abs(units)).rjust(places + 1, "0")
    decimal = f"{sign}{digits[: len(digits) - places]}.{digits[len(digits) - places :]}"
    assert equivalent(decimal, str(Fraction(units, 10**places)))


@given(st.integers(-(10**9), 10**9))
def test_thousands_separators_change_nothing(value: int) -> None:
    assert equivalent(f"{value:,}", str(value))


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("9" * 100_000, id="a numeral of 100 kB"),
        pytest.param("0." + "3" * 100_000, id="a decimal of 100 kB"),
        pytest.param("1/" + "7" * 100_000, id="a denominator of 100 kB"),
        pytest.param("\\frac{" * 50_000, id="fractions that never close"),
        pytest.param("1e999999999", id="a huge exponent"),
        pytest.param("1e-999", id="a tiny exponent"),
        pytest.param("9^" * 50_000 + "9", id="a tower of powers"),
        pytest.param("9!" * 50_000, id="a tower of factorials"),
        pytest.param("(" * 100_000, id="brackets that never close"),
        pytest.param("9^{" * 1_000, id="exponents that never close"),
        pytest.param("9^{9^{9^{9}}}", id="a tower that fits"),
        pytest.param("99999999!", id="a factorial"),
        pytest.param("\\binom{10^{9}}{5\\cdot10^{8}}", id="a binomial"),
        pytest.param("(x+1)^{1000000}", id="a power of a sum"),
        pytest.param("\\sum_{k=1}^{10^{9}} k", id="a long sum"),
        pytest.param("\\sum_{i=1}^{300}\\sum_{j=1}^{300}\\sum_{k=1}^{300} ijk", id="sums in sums"),
        pytest.param("\\tan(" * 30 + "x" + ")" * 30, id="functions in functions"),
        pytest.param("\\begin{pmatrix}" + "1&" * 1_900 + "1\\end{pmatrix}", id="a wide matrix"),
        pytest.param("-" * 4_000 + "1", id="signs"),
        pytest.param("\\sqrt{" * 600 + "2" + "}" * 600, id="roots in roots"),
        pytest.param("__import__('os').system('true')", id="code"),
        pytest.param("\x00\ud800" * 1_000, id="NUL and lone surrogates"),
        pytest.param("1," * 100_000, id="separators"),
        pytest.param("\\text{" * 50_000, id="texts that never close"),
        pytest.param("a" + "\u0300\u0316" * 60_000, id="combining marks"),
        pytest.param("1 cm, 2(" * 39 + "1" + ")" * 39, id="quantities that go on in brackets"),
        pytest.param("1 hour 2 " * 400, id="quantities without end"),
        pytest.param(")U(" * 1_300, id="unions by hand"),
        pytest.param("\\begin{pmatrix}1&2\\end{pmatrix}" + "^T" * 1_000, id="transposes"),
        pytest.param("all real numbers except " + "1," * 1_900, id="exceptions"),
    ],
)
def test_a_hostile_answer_is_named_in_time_in_proportion_to_its_length(answer: str) -> None:
    assert len(canonical_key(answer)) <= 2 * len(answer) + 1000


numbers = st.integers(-50, 50)
positive = st.integers(1, 60)


@given(positive, positive)
def test_a_factor_goes_under_the_root_as_its_square(k: int, n: int) -> None:
    assert equivalent(f"{k}\\sqrt{{{n}}}", f"\\sqrt{{{k * k * n}}}")
    assert not equivalent(f"{k}\\sqrt{{{n}}}", f"\\sqrt{{{k * k * n + 1}}}")


@given(positive, st.sampled_from([2, 3, 5, 7, 11, 13]))
def test_a_denominator_may_be_rationalised(a: int, b: int) -> None:
    assert equivalent(f"\\frac{{1}}{{{a}+\\sqrt{{{b}}}}}", f"\\frac{{{a}-\\sqrt{{{b}}}}}{{{a * a - b}}}")


@given(numbers, numbers, numbers)
def test_a_product_equals_its_expansion_and_no_other(a: int, b: int, c: int) -> None:
    product = f"(x{a:+})({c}x{b:+})"
    assert equivalent(product, f"{c}x^2+({b}+{a * c})x{a * b:+}")
    assert not equivalent(product, f"{c}x^2+({b}+{a * c})x{a * b + 1:+}")


@given(numbers, numbers, st.integers(1, 9))
def test_an_equation_equals_its_multiples_and_no_shift(a: int, b: int, k: int) -> None:
    equation = f"y={a}x{b:+}"
    assert equivalent(equation, f"{k}y={a * k}x{b * k:+}")
    assert equivalent(equation, f"{-a}x+y={b}")
    assert not equivalent(equation, f"y={a}x{b + 1:+}")


@given(st.lists(numbers, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_a_set_has_no_order_and_a_point_has_one(items: list[int], random: Random) -> None:
    shuffled = random.sample(items, len(items))
    braces, brackets = "\\{{{}\\}}", "({})"
    for form, unordered in ((braces, True), (brackets, False)):
        a, b = (form.format(", ".join(map(str, numbers))) for numbers in (items, shuffled))
        assert equivalent(a, b) == (unordered or items == shuffled)


@given(st.integers(1, 10**6), st.integers(2, 99))
def test_a_mixed_number_is_the_sum_of_its_parts(whole: int, below: int) -> None:
    assert equivalent(f"{whole}\\frac{{1}}{{{below}}}", str(Fraction(whole * below + 1, below)))
    assert equivalent(f"-{whole}\\frac{{1}}{{{below}}}", str(-Fraction(whole * below + 1, below)))


@given(st.integers(0, 10**6), st.integers(1, 999))
def test_a_repeating_decimal_is_its_series(whole: int, cycle: int) -> None:
    assert equivalent(f"{whole}.\\overline{{{cycle:03}}}", str(whole + Fraction(cycle, 999)))


@given(st.integers(-400, 400), st.integers(-400, 400))
def test_powers_of_ten_are_told_apart_however_small(a: int, b: int) -> None:
    assert equivalent(f"10^{{{a}}}", f"10^{{{b}}}") == (a == b)

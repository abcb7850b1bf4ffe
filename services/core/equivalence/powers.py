"""Powers, roots, factorials and binomials of values: exact where they can be, guarded by size. Pure; bounded."""

import math
from fractions import Fraction

from services.core.equivalence.numeric import (
    MAX_EXACT_BITS,
    MAX_EXPONENT_BITS,
    Undefined,
    Value,
    add,
    approximate,
    as_integer,
    bits,
    checked,
    context,
    divide,
    is_real,
    magnitude,
    multiply,
    settled,
    snapped,
)

_MAX_FACTORIAL = 5_000


def power(base: Value, exponent: Value) -> Value:
    """base ** exponent on the principal branch; odd roots of negative reals are real, as at school."""
    exponent = snapped(exponent)
    if base == 0:
        if not is_real(exponent) or exponent <= 0:
            raise Undefined
        return Fraction(0)
    if isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            return _integer_power(base, exponent.numerator)
        if exponent.denominator <= 64:
            return _integer_power(root(base, exponent.denominator), exponent.numerator)
    if magnitude(exponent) > 40 or abs(magnitude(base)) * 2.0 ** magnitude(exponent) > MAX_EXPONENT_BITS:
        raise Undefined
    return settled(context().power(approximate(base), approximate(exponent)), -math.inf)


def _integer_power(base: Value, exponent: int) -> Value:
    if isinstance(base, Fraction):
        if bits(base) > 1 and bits(base) * abs(exponent) > MAX_EXACT_BITS:
            return _inexact_power(base, exponent)
        return base**exponent
    return _inexact_power(base, exponent)


def _inexact_power(base: Value, exponent: int) -> Value:
    if exponent.bit_length() > 40 or (abs(magnitude(base)) + 1) * abs(exponent) > MAX_EXPONENT_BITS:
        raise Undefined
    if isinstance(base, Fraction):
        # A huge exact number has no faithful approximation: its last digit is what a text may change.
        raise Undefined
    return settled(approximate(base) ** exponent, -math.inf)


def root(base: Value, degree: int) -> Value:
    """The degree-th root: exact where it is rational, real for odd roots of negative reals, else principal."""
    if degree < 1 or degree > 64:
        raise Undefined
    base = snapped(base) if not isinstance(base, Fraction) else base
    if base == 0:
        return Fraction(0)
    if is_real(base) and base < 0 and degree % 2:
        return -root(-base, degree)
    if isinstance(base, Fraction) and base > 0 and bits(base) < 20_000:
        above, below = _exact_root(base.numerator, degree), _exact_root(base.denominator, degree)
        if above is not None and below is not None:
            return Fraction(above, below)
    return settled(context().root(approximate(base), degree), -math.inf)


def _exact_root(number: int, degree: int) -> int | None:
    if degree == 2:
        found = math.isqrt(number)
        return found if found * found == number else None
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree < number:
            low = middle + 1
        else:
            high = middle
    return low if low**degree == number else None


def factorial(value: Value) -> Value:
    """n! for n up to 5,000, and the gamma function elsewhere."""
    n = as_integer(value)
    if n is not None:
        if not 0 <= n <= _MAX_FACTORIAL:
            raise Undefined
        return Fraction(math.factorial(n))
    if magnitude(value) > 10:
        raise Undefined
    return settled(context().gamma(approximate(value) + 1), -math.inf)


def binomial(n: Value, k: Value) -> Value:
    top, bottom = as_integer(n), as_integer(k)
    if top is not None and bottom is not None:
        if top < 0 or not 0 <= min(bottom, top - bottom) <= _MAX_FACTORIAL or top.bit_length() > 60:
            raise Undefined
        return checked(Fraction(math.comb(top, bottom)))
    return divide(factorial(n), multiply(factorial(k), factorial(add(n, -k))))

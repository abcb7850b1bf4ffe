"""Arithmetic on exact rationals where possible, on 100 digits elsewhere, and a name for each number. Pure; bounded.

A `Value` is a `Fraction` as long as it can be, else an mpmath number. Two expressions are equal when their values at
fixed points agree to 39 digits out of 100: cancellation would have to eat 60 digits, and is watched. Every operation
is guarded by size before it is tried, so that no text can make a number that does not fit.
"""

import hashlib
import math
import threading
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

from services.core.equivalence.lexer import Unreadable

Value: TypeAlias = Any  # Fraction, or mpf / mpc of the thread's context (mpmath is not typed)

PRECISION = 330  # bits; 100 digits
_NAME_BITS = 130  # of which this many name a number; 39 digits
_LOST_BITS = 190  # a sum that cancels more than this is zero
MAX_EXACT_BITS = 150_000
MAX_EXPONENT_BITS = 2_000_000
_MAX_SNAPPED = 1_000_000  # denominators of sums of roots that turn out rational
_LOCAL = threading.local()


class Undefined(Unreadable):
    """No number: a division by zero, or one beyond the guarded size."""


def context() -> Any:
    """This thread's own mpmath context: contexts change their precision while they compute."""
    found = getattr(_LOCAL, "context", None)
    if found is None:
        from mpmath.ctx_mp import MPContext  # a tenth of a second, and plain numbers never need it

        found = _LOCAL.context = MPContext()
        found.prec = PRECISION
    return found


def approximate(value: Value) -> Value:
    """`value` as an mpmath number."""
    if not isinstance(value, Fraction):
        return value
    ctx = context()
    return ctx.mpf(value.numerator) / value.denominator if value.denominator != 1 else ctx.mpf(value.numerator)


def bits(value: Fraction) -> int:
    """Of the longer of its two integers."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def checked(value: Fraction) -> Fraction:
    """`value`. Raises `Undefined` when it is too long to be worked with."""
    if bits(value) > MAX_EXACT_BITS:
        raise Undefined
    return value


def magnitude(value: Value) -> float:
    """log2 of the absolute value; -inf of zero."""
    if isinstance(value, Fraction):
        return value.numerator.bit_length() - value.denominator.bit_length() if value else -math.inf
    found = context().mag(value)
    if not isinstance(found, int):
        if value == 0:
            return -math.inf
        raise Undefined
    return found


def settled(value: Value, scale: float = 0.0) -> Value:
    """An inexact result: what is nothing beside 2**scale is zero, an imaginary part that is rounding is dropped."""
    ctx = context()
    size = magnitude(value)
    if size > MAX_EXPONENT_BITS or size < -MAX_EXPONENT_BITS:
        if size == -math.inf:
            return Fraction(0)
        raise Undefined
    if size < scale - _LOST_BITS:
        return Fraction(0)
    if isinstance(value, ctx.mpc):
        real, imaginary = value.real, value.imag
        if imaginary == 0 or magnitude(imaginary) < size - _LOST_BITS:
            return real
        if real != 0 and magnitude(real) < size - _LOST_BITS:
            return ctx.mpc(0, imaginary)
    return value


def add(a: Value, b: Value) -> Value:
    """a + b. Raises `Undefined` where one is so small beside the other that the sum would forget it."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return checked(a + b)
    if a == 0 or b == 0:
        return b if a == 0 else a
    x, y = magnitude(a), magnitude(b)
    if abs(x - y) > PRECISION - _NAME_BITS:
        raise Undefined
    return settled(approximate(a) + approximate(b), max(x, y))


def multiply(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return checked(a * b)
    if a == 0 or b == 0:
        return Fraction(0)
    return settled(approximate(a) * approximate(b), -math.inf)


def divide(a: Value, b: Value) -> Value:
    """a / b. Raises `Undefined` when b is zero."""
    if b == 0:
        raise Undefined
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return checked(a / b)
    return settled(approximate(a) / approximate(b), -math.inf)


def is_real(value: Value) -> bool:
    return isinstance(value, Fraction) or not isinstance(value, context().mpc)


def as_integer(value: Value) -> int | None:
    """The integer that `value` is, if it is one."""
    value = snapped(value)
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else None


def snapped(value: Value) -> Value:
    """An inexact number that is a small rational to all its digits, as that rational: sqrt(3)*sqrt(3) is 3."""
    if isinstance(value, Fraction):
        return value
    ctx = context()
    if isinstance(value, ctx.mpc):
        return value
    size = magnitude(value)
    if not -64 < size < 128:
        return value
    exact = as_fraction(value)
    near = exact.limit_denominator(_MAX_SNAPPED)
    return near if near and abs(exact - near) * 2**_LOST_BITS < abs(exact) else value


def as_fraction(value: Value) -> Fraction:
    sign, mantissa, exponent, _ = value._mpf_
    number = int(-mantissa if sign else mantissa)
    return Fraction(number << exponent) if exponent >= 0 else Fraction(number, 1 << -exponent)


def name_of(value: Value, *, inexact: bool = False) -> str:
    """The same string for the same number, another for another.

    `inexact`: fractions at a sample point go by their leading digits as well, as a way through roots would give them.
    """
    value = snapped(value)
    if inexact and isinstance(value, Fraction) and value.denominator > _MAX_SNAPPED and abs(magnitude(value)) < 100:
        value = approximate(value)
    if isinstance(value, Fraction):
        if bits(value) > 2000:
            return (
                "#" + hashlib.blake2b(f"{value.numerator:x}/{value.denominator:x}".encode(), digest_size=24).hexdigest()
            )
        return str(value)
    ctx = context()
    if isinstance(value, ctx.mpc):
        real, imaginary = snapped(value.real), snapped(value.imag)
        return f"{name_of(real)}+i{name_of(imaginary)}"
    sign, mantissa, exponent, length = ctx.fmul(value, _unaligned())._mpf_
    drop = int(length) - _NAME_BITS
    digits = (int(mantissa) + (1 << (drop - 1))) >> drop if drop > 0 else int(mantissa) << -drop
    if digits >> _NAME_BITS:
        digits, drop = digits >> 1, drop + 1
    return f"{'-' if sign else ''}{digits:x}p{int(exponent) + drop}"


def _unaligned() -> Value:
    """A factor that keeps the numbers people write away from the edges at which digits are rounded."""
    return context().mpf(_fraction_from("rounding"))


@lru_cache(maxsize=4096)
def _fraction_from(name: str) -> float:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return 1.0 + int.from_bytes(digest, "big") / 2**66


@lru_cache(maxsize=4096)
def point(name: str, which: int) -> Fraction:
    """Where the symbol `name` stands at sample point `which`: irregular, near 1 so that high powers keep their
    digits; positive at point 0, negative at 1, of mixed signs at the others."""
    digest = hashlib.blake2b(f"{which}:{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    size = Fraction(985_000_001 + 2 * (number % 6_700_000), 1_000_000_007)
    return -size if which == 1 or (which and number >> 63) else size

"""The functions that answers apply to numbers. Pure; each guards the size of its arguments."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

from services.core.equivalence import numeric, powers
from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.numeric import Undefined, Value

Arguments: TypeAlias = list[Value]
# The base of a `log` without one: 0 natural, 10; None when it is not told, which makes a factor of its own.
LogBase: TypeAlias = int | None
_ONE = Fraction(1)


def apply(name: str, values: Arguments, log_base: LogBase) -> Value:
    """`name` of `values`. Raises `Unreadable` for a wrong number of arguments, `Undefined` where it has no value."""
    fewest, most = _ARGUMENTS.get(name, (1, 1))
    if not fewest <= len(values) <= most:
        raise Unreadable
    return FUNCTIONS[name](values, log_base)


def _root(values: Arguments, log_base: LogBase) -> Value:
    degree = numeric.as_integer(values[1])
    return (
        powers.power(values[0], numeric.divide(_ONE, values[1])) if degree is None else powers.root(values[0], degree)
    )


def _elementary(name: str) -> Callable[[Arguments, LogBase], Value]:
    """An mpmath function of one argument of moderate size."""

    def compute(values: Arguments, log_base: LogBase) -> Value:
        (value,) = values
        if numeric.magnitude(value) > 20:
            raise Undefined
        ctx = numeric.context()
        try:
            return numeric.settled(getattr(ctx, name)(numeric.approximate(value)))
        except (ZeroDivisionError, ValueError, OverflowError):
            raise Undefined from None

    return compute


def _quotient(above: str, below: str) -> Callable[[Arguments, LogBase], Value]:
    def compute(values: Arguments, log_base: LogBase) -> Value:
        top = FUNCTIONS[above](values, log_base) if above else _ONE
        return numeric.divide(top, FUNCTIONS[below](values, log_base))

    return compute


def _of_inverse(name: str) -> Callable[[Arguments, LogBase], Value]:
    def compute(values: Arguments, log_base: LogBase) -> Value:
        return FUNCTIONS[name]([numeric.divide(_ONE, values[0])], log_base)

    return compute


def _logarithm(values: Arguments, log_base: LogBase) -> Value:
    """`\\log_b x`; without a base, natural up to a factor that the reader chooses."""
    natural = _natural(values[0])
    if len(values) > 1:
        return numeric.divide(natural, _natural(values[1]))
    if log_base is None:
        return numeric.multiply(natural, numeric.point("log", 0))
    return natural if log_base == 0 else numeric.divide(natural, _natural(Fraction(log_base)))


def _natural(value: Value) -> Value:
    if value == 0:
        raise Undefined
    if value == 1:
        return Fraction(0)
    return numeric.settled(numeric.context().ln(numeric.approximate(value)), 0)


def _ln(values: Arguments, log_base: LogBase) -> Value:
    return numeric.divide(_natural(values[0]), _natural(values[1])) if len(values) > 1 else _natural(values[0])


def _lg(values: Arguments, log_base: LogBase) -> Value:
    return numeric.divide(_natural(values[0]), _natural(Fraction(10)))


def _cis(values: Arguments, log_base: LogBase) -> Value:
    sine = numeric.multiply(FUNCTIONS["sin"](values, log_base), numeric.context().mpc(0, 1))
    return numeric.add(FUNCTIONS["cos"](values, log_base), sine)


def _absolute(values: Arguments, log_base: LogBase) -> Value:
    (value,) = values
    return abs(value) if isinstance(value, Fraction) else numeric.settled(abs(value), -math.inf)


def _whole(rounding: Callable[[Fraction], int]) -> Callable[[Arguments, LogBase], Value]:
    def compute(values: Arguments, log_base: LogBase) -> Value:
        value = numeric.snapped(values[0])
        if not isinstance(value, Fraction):
            if not numeric.is_real(value) or numeric.magnitude(value) > 200:
                raise Undefined
            value = numeric.as_fraction(value)
        return Fraction(rounding(value))

    return compute


def _of_integers(combine: Callable[..., int]) -> Callable[[Arguments, LogBase], Value]:
    def compute(values: Arguments, log_base: LogBase) -> Value:
        integers = [numeric.as_integer(value) for value in values]
        found = [n for n in integers if n is not None]
        if len(found) != len(values) or not found or sum(n.bit_length() for n in found) > 10_000:
            raise Undefined
        return Fraction(combine(*found))

    return compute


def _extreme(choose: Callable[..., Value]) -> Callable[[Arguments, LogBase], Value]:
    def compute(values: Arguments, log_base: LogBase) -> Value:
        if not all(numeric.is_real(value) for value in values):
            raise Undefined
        return choose(values, key=numeric.approximate)

    return compute


def _modulo(values: Arguments, log_base: LogBase) -> Value:
    a, b = (numeric.as_integer(value) for value in values)
    if a is None or not b:
        raise Undefined
    return Fraction(a % b)


FUNCTIONS: dict[str, Callable[[Arguments, LogBase], Value]] = {
    **{name: _elementary(name) for name in ("sin", "cos", "sinh", "cosh", "exp")},
    "tan": _quotient("sin", "cos"), "cot": _quotient("cos", "sin"), "sec": _quotient("", "cos"),
    "csc": _quotient("", "sin"), "tanh": _quotient("sinh", "cosh"), "coth": _quotient("cosh", "sinh"),
    "sech": _quotient("", "cosh"), "csch": _quotient("", "sinh"),
    "arcsin": _elementary("asin"), "arccos": _elementary("acos"), "arctan": _elementary("atan"),
    "arcsinh": _elementary("asinh"), "arccosh": _elementary("acosh"), "arctanh": _elementary("atanh"),
    "arccot": _of_inverse("arctan"), "arcsec": _of_inverse("arccos"), "arccsc": _of_inverse("arcsin"),
    "ln": _ln, "cis": _cis, "lg": _lg, "log": _logarithm, "abs": _absolute, "root": _root,
    "floor": _whole(math.floor), "ceil": _whole(math.ceil),
    "gcd": _of_integers(math.gcd), "lcm": _of_integers(math.lcm), "max": _extreme(max), "min": _extreme(min),
    "mod": _modulo, "binom": lambda values, log_base: powers.binomial(*values),
}  # fmt: skip

# How many arguments the functions take that do not take one.
_ARGUMENTS = {
    "log": (1, 2), "ln": (1, 2), "root": (2, 2), "mod": (2, 2), "binom": (2, 2),
    **dict.fromkeys(("gcd", "lcm", "max", "min"), (1, 50)),
}  # fmt: skip

"""Which answers are the same answer. Pure; bounded time on any input.

Equality here is an equivalence relation by construction: every answer has one canonical key (an exact rational where
it is a plain number, its normal spelling otherwise), and two answers are equal when their keys are.
"""

import re
from fractions import Fraction

from services.core.answers import normalise

# Longer numerals are compared as text: a Fraction of a 100 kB numeral would cost seconds.
_MAX_DIGITS = 200
_MAX_EXPONENT = 400

_DECIMAL = re.compile(r"(?P<sign>[+-]?)(?P<whole>\d*)(?:\.(?P<part>\d*))?(?:[eE](?P<exp>[+-]?\d{1,3}))?", re.ASCII)
_SLASH = re.compile(r"(?P<sign>[+-]?)(?P<p>\d+)/(?P<q>\d+)", re.ASCII)
# TeX takes one digit or one group: \frac12 and \frac{1}{2} are halves, \frac123 is three halves.
_FRAC = re.compile(r"(?P<sign>[+-]?)\\frac(?:(?P<p>\d)|\{(?P<pp>-?\d+)\})(?:(?P<q>\d)|\{(?P<qq>\d+)\})", re.ASCII)


def canonical_key(answer: str) -> str:
    """The name of the class of all answers equal to `answer`."""
    text = normalise(answer)
    value = _rational(text)
    return f"={value}" if value is not None else text


def equivalent(a: str, b: str) -> bool:
    """Whether two answers are the same: reflexive, symmetric and transitive."""
    return canonical_key(a) == canonical_key(b)


def _rational(text: str) -> Fraction | None:
    if len(text) > _MAX_DIGITS:
        return None
    return _from_fraction(text) if "/" in text or "frac" in text else _from_decimal(text)


def _from_decimal(text: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(text)
    if match is None or not (match["whole"] or match["part"]):
        return None
    if match["exp"] and abs(int(match["exp"])) > _MAX_EXPONENT:
        return None
    return Fraction(text if match["whole"] else text.replace(".", "0.", 1))


def _from_fraction(text: str) -> Fraction | None:
    match = _SLASH.fullmatch(text) or _FRAC.fullmatch(text)
    if match is None:
        return None
    found = match.groupdict()
    numerator, denominator = (int(found[one] or found.get(group) or 0) for one, group in (("p", "pp"), ("q", "qq")))
    if denominator == 0:
        return None
    value = Fraction(numerator, denominator)
    return -value if found["sign"] == "-" else value

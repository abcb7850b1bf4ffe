"""Units of measure: one name and one size for each spelling. Pure tables and text."""

import re
from dataclasses import dataclass
from fractions import Fraction

# dimension: {spelling: size}; sizes are exact, and comparable within a dimension only.
_TABLE: dict[str, dict[str, str | int]] = {
    "length": {
        "mm millimeter millimetre": "1/1000", "cm centimeter centimetre": "1/100", "dm decimeter": "1/10",
        "m meter metre": 1, "km kilometer kilometre": 1000, "in inch inche": "254/10000", "ft foot feet": "3048/10000",
        "yd yard": "9144/10000", "mi mile": "1609344/1000",
    },
    "time": {
        "ms millisecond": "1/1000", "s sec second": 1, "min minute": 60, "h hr hour": 3600, "day": 86400,
        "week": 604800, "month": "2629746", "year yr": "31556952",
    },
    "mass": {
        "mg milligram": "1/1000000", "g gram": "1/1000", "kg kilogram": 1, "lb pound": "45359237/100000000",
        "oz ounce": "28349523125/1000000000000", "ton tonne": 1000,
    },
    "volume": {
        "ml milliliter millilitre": "1/1000", "l liter litre": 1, "gal gallon": "3785411784/1000000000",
        "quart qt": "946352946/1000000000", "pint pt": "473176473/1000000000", "cup": "2365882365/10000000000",
    },
    "money": {"$ dollar usd buck": 1, "cent penny pennie ¢": "1/100", "dime": "1/10", "quarter": "1/4", "nickel": "1/20"},
    "euro": {"€ euro eur": 1}, "pound sterling": {"£ gbp": 1}, "yen": {"¥ yen yuan rmb cny": 1}, "rupee": {"₹ rupee rs": 1},
    "angle": {"deg degree °": 1, "revolution": 360},
    "radian": {"rad radian": 1},
    "ratio": {"% percent pct percentage": "1/100"},
    "temperature": {"celsius °c": 1}, "fahrenheit": {"fahrenheit °f": 1},
}  # fmt: skip
_UNITS = {
    name: (dimension, Fraction(size), names.split()[0])
    for dimension, units in _TABLE.items()
    for names, size in units.items()
    for name in names.split()
}
KNOWN = frozenset(_UNITS)
# Single letters are units only where they are set upright.
UPRIGHT_LETTERS = frozenset(["m", "s", "g", "h", "l", "L"])
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
_SPEEDS = {"mph": "mile per hour", "kph": "km per hour", "kmh": "km per hour"}
_RATES = re.compile(r"\b(?:mph|kph|kmh)\b")
_NOISE = frozenset(["units", "unit", "of", "the", "in", "a", "an", "each", "total"])
_PIECES = re.compile(r"(?P<per>/|\bper\b)|\^?\{?(?P<power>-?[1-9])\}?|(?P<word>[^\W\d_]+|[$€£¥₹%°¢]+)")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts. `size` is exact and None when a word is not in the table; `words` are as written."""

    dimension: tuple[tuple[str, int], ...]
    size: Fraction | None
    words: frozenset[str]

    @property
    def key(self) -> str:
        if self.size is None:
            return " ".join(sorted(self.words))
        return " ".join(f"{name}^{power}" for name, power in self.dimension) + f"*{self.size}"

    @property
    def percent(self) -> bool:
        return self.dimension == (("ratio", 1),)

    @property
    def degrees(self) -> bool:
        return self.dimension == (("angle", 1),)


def read_unit(text: str) -> Unit | None:
    """The unit that `text` names; None when it names none ("units", "square units")."""
    dimension: dict[str, int] = {}
    size: Fraction | None = Fraction(1)
    words: set[str] = set()
    sign, coming, last = 1, 1, ""
    for piece in _PIECES.finditer(_RATES.sub(lambda m: _SPEEDS[m[0]], text.casefold().replace(".", ""))):
        if piece["per"]:
            sign = -1
        elif piece["power"]:
            raised = int(piece["power"])
            if last:
                dimension[_dimension(last)] = dimension.get(_dimension(last), 0) + sign * (raised - 1)
                size = _scaled(size, last, sign * (raised - 1))
        elif piece["word"] in _POWERS:
            coming, last = _late_power(piece["word"], last, dimension)
            if last:
                size = _scaled(size, last, coming - 1)
                coming = 1
        elif piece["word"] not in _NOISE:
            last = _singular(piece["word"])
            words.add(last)
            dimension[_dimension(last)] = dimension.get(_dimension(last), 0) + sign * coming
            size = _scaled(size, last, sign * coming)
            sign, coming = 1, 1
    if not words:
        return None
    return Unit(tuple(sorted((d, p) for d, p in dimension.items() if p)), size, frozenset(words))


def _late_power(word: str, last: str, dimension: dict[str, int]) -> tuple[int, str]:
    """`cm squared` raises what came before, `square cm` what comes after."""
    power = _POWERS[word]
    if last and word.endswith("ed"):
        dimension[_dimension(last)] += power - 1
        return power, last
    return power, ""


def _dimension(word: str) -> str:
    return _UNITS[word][0] if word in _UNITS else word


def _scaled(size: Fraction | None, word: str, power: int) -> Fraction | None:
    return None if size is None or word not in _UNITS else size * _UNITS[word][1] ** power


def _singular(word: str) -> str:
    if word in _UNITS or len(word) < 3:
        return word
    for ending in ("es", "s"):
        if word.endswith(ending) and word[: -len(ending)] in _UNITS:
            return word[: -len(ending)]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def compatible(a: Unit | None, b: Unit | None) -> Fraction | None:
    """How many b make one a: 1 when either is missing or they share a word; None when they contradict."""
    if a is None or b is None or a == b:
        return Fraction(1)
    if a.size is not None and b.size is not None:
        return a.size / b.size if a.dimension == b.dimension else None
    return Fraction(1) if a.words & b.words else None

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
    "money": {"$ dollar usd buck": 1, "cent penny pennie ¢": "1/100", "dime": "1/10", "nickel": "1/20"},
    "euro": {"€ euro eur": 1}, "pound sterling": {"£ gbp": 1}, "yen": {"¥ yen": 1}, "yuan": {"yuan rmb cny": 1},
    "rupee": {"₹ rupee rs": 1},
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
_SPEEDS = {"mph": "mile per hour", "kph": "km per hour", "kmh": "km per hour"}
KNOWN = frozenset(_UNITS) | _SPEEDS.keys()
# Single letters are units only where they are set upright.
UPRIGHT_LETTERS = frozenset(["m", "s", "g", "h", "l", "L"])
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_RATES = re.compile(r"\b(?:mph|kph|kmh)\b")
_SIGNS = re.compile(r"\s*([\^{}-])\s*")
# "in" is a word before another, as in "5 in total"
_INCHES = re.compile(r"\bin\b(?!\s*[^\W\d_])")
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
    reader = _UnitReader()
    plain = _RATES.sub(lambda m: _SPEEDS[m[0]], text.casefold().replace(".", ""))
    for piece in _PIECES.finditer(_INCHES.sub("inch", _SIGNS.sub(r"\1", plain))):
        if piece["per"]:
            reader.sign = -1
        elif piece["power"]:
            reader.raise_last(int(piece["power"]))
        elif piece["word"] in _POWERS:
            reader.power(piece["word"])
        elif piece["word"] not in _NOISE:
            reader.word(_singular(piece["word"]))
    if not reader.words:
        return None
    dimension = tuple(sorted((name, power) for name, power in reader.dimension.items() if power))
    return Unit(dimension, reader.size, frozenset(reader.words))


class _UnitReader:
    """What the words of a unit have multiplied up to so far."""

    def __init__(self) -> None:
        self.dimension: dict[str, int] = {}
        self.size: Fraction | None = Fraction(1)
        self.words: set[str] = set()
        self.sign = 1  # -1 after "per"
        self._coming = 1  # the power of the next word, after "square"
        self._last = ""
        self._last_sign = 1

    def word(self, word: str) -> None:
        self.words.add(word)
        self._last, self._last_sign = word, self.sign
        self._multiply(word, self.sign * self._coming)
        self.sign = self._coming = 1

    def power(self, word: str) -> None:
        """`cm squared` raises what came before, `square cm` what comes after."""
        if self._last and word.endswith("ed"):
            self.raise_last(_POWERS[word])
        else:
            self._coming = _POWERS[word]

    def raise_last(self, power: int) -> None:
        if self._last:
            self._multiply(self._last, self._last_sign * (power - 1))

    def _multiply(self, word: str, power: int) -> None:
        name = _UNITS[word][0] if word in _UNITS else word
        self.dimension[name] = self.dimension.get(name, 0) + power
        self.size = None if self.size is None or word not in _UNITS else self.size * _UNITS[word][1] ** power


def _singular(word: str) -> str:
    if word in _UNITS or len(word) < 3:
        return word
    for ending in ("es", "s"):
        if word.endswith(ending) and word[: -len(ending)] in _UNITS:
            return word[: -len(ending)]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def parts_of(whole: str, part: str) -> Fraction | None:
    """How many of the unit `part` make one of `whole`; None unless it is the smaller of two plain units of one kind."""
    if scaled_words(whole)[0] != 1 or scaled_words(part)[0] != 1:
        return None
    large, small = read_unit(whole), read_unit(part)
    if large is None or small is None or large.size is None or small.size is None:
        return None
    if large.dimension != small.dimension or [power for _, power in large.dimension] != [1]:
        return None
    times = large.size / small.size
    return times if times > 1 else None


def scaled_words(text: str) -> tuple[int, str]:
    """`million dollars` counts a million dollars."""
    first, _, rest = text.strip().partition(" ")
    scale = _SCALES.get(first.lower(), 1)
    return (1, text) if scale == 1 else (scale, rest)


def compatible(a: Unit | None, b: Unit | None) -> Fraction | None:
    """How many b make one a: 1 when either is missing or they share a word; None when they contradict."""
    if a is None or b is None or a == b:
        return Fraction(1)
    if a.size is not None and b.size is not None:
        return a.size / b.size if a.dimension == b.dimension else None
    return Fraction(1) if a.words & b.words else None

"""Answers that are no formulas: choices, clock times, dates, number words. Pure text, linear time."""

import re
from dataclasses import dataclass

from services.core.equivalence.lexicon import ALL_REALS, EMPTY, INFINITE, NUMBER_WORDS, UNDEFINED
from services.core.equivalence.typography import without_text_commands, words_of

_CHOICE = re.compile(
    r"(?P<said>(?:choice|option|answer)\s+)?(?P<open>[(\[])?\s*(?P<letter>[A-Za-z])\s*(?P<close>[)\]])?[.:]?",
    re.IGNORECASE,
)
_EXPLAINED = re.compile(
    r"(?:(?:choice|option)\s+)?[(\[]?\s*(?P<letter>[A-J])\s*(?:[)\]][.:]?|[.:])\s+(?!and\b|or\b|&)(?P<rest>\S.*)",
    re.DOTALL,
)
_CHOICES = re.compile(r"[(\[]?[A-J][)\]]?(?:\s*(?:,\s*and\b|,|;|&|\band\b)\s*[(\[]?[A-J][)\]]?){1,9}")
_RUN = re.compile(r"[A-J]{2,10}")
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d))?(?::(?P<second>[0-5]\d))?\s*(?P<half>[ap]\.?\s?m\.?)?", re.IGNORECASE
)
_YEAR = "january february march april may june july august september october november december"
_MONTHS = {month: number for number, month in enumerate(_YEAR.split(), start=1)}
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)?")


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple-choice question, and what was written after it. `dressed`: it can be nothing else."""

    letter: str
    dressed: bool
    rest: str = ""


def read_choice(text: str) -> Choice | None:
    """The choice that tidy `text` names: C, (C), \\text{(C)}, C., option C, "C. 12"."""
    plain = without_text_commands(text).strip()
    match = _CHOICE.fullmatch(plain)
    if match and bool(match["open"]) <= bool(match["close"]):
        return Choice(match["letter"], bool(match["close"] or match["said"] or plain != text))
    match = _EXPLAINED.fullmatch(plain)
    return Choice(match["letter"], True, match["rest"]) if match else None


def read_choices(text: str) -> tuple[frozenset[str], bool] | None:
    """The choices that tidy `text` names together, and whether they stand apart: A, C; (A) and (C); AC."""
    plain = without_text_commands(text).strip()
    if _CHOICES.fullmatch(plain):
        return frozenset(char for char in plain if "A" <= char <= "J"), True
    letters = frozenset(plain)
    return (letters, False) if _RUN.fullmatch(plain) and len(letters) == len(plain) else None


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day as written; `half` is a, p or empty."""

    hour: int
    minute: int
    second: int
    half: str

    def same(self, other: "Clock") -> bool:
        """Whether both can be the same time; am and pm may be left out, as units may."""
        if (self.minute, self.second) != (other.minute, other.second):
            return False
        if self.half and other.half:
            return self.half == other.half and self.hour % 12 == other.hour % 12
        if self.hour == other.hour:
            return True
        return (self.half or other.half) == "p" and abs(self.hour - other.hour) == 12


def read_clock(text: str) -> Clock | None:
    """The time of day that tidy `text` tells, with minutes or with am/pm."""
    match = _CLOCK.fullmatch(without_text_commands(text).strip())
    if match is None or not (match["minute"] or match["half"]) or int(match["hour"]) > 24:
        return None
    half = (match["half"] or "")[:1].lower()
    return Clock(int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0), half)


def read_date(text: str) -> tuple[int, tuple[int, ...]] | None:
    """(month, other numbers) of a date that names its month."""
    months, numbers = [], []
    for word in words_of(text).split():
        ordinal = _ORDINAL.fullmatch(word)
        if word in _MONTHS:
            months.append(_MONTHS[word])
        elif ordinal and len(ordinal[1]) <= 4:
            numbers.append(int(ordinal[1]))
        elif word not in ("of", "the"):
            return None
    return (months[0], tuple(sorted(numbers))) if len(months) == 1 and numbers else None


def number_in_words(words: str) -> int | None:
    """`twenty-one` is 21; None when the words are no integer below a hundred."""
    parts = words.split()
    if len(parts) == 1:
        return NUMBER_WORDS.get(parts[0])
    if len(parts) == 2 and NUMBER_WORDS.get(parts[0], 0) >= 20 and 0 < NUMBER_WORDS.get(parts[1], 0) < 10:
        return NUMBER_WORDS[parts[0]] + NUMBER_WORDS[parts[1]]
    return None


def gist(words: str) -> str:
    """One word for each family of set phrases: nothing, undefined, infinite, all real numbers."""
    for family, name in ((EMPTY, "none"), (UNDEFINED, "undefined"), (INFINITE, "infinite"), (ALL_REALS, "reals")):
        if words in family:
            return name
    return words

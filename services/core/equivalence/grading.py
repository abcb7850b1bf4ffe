"""The quick verdict on a pair of answers: all that needs no computer algebra. Pure; bounded time on any input.

`voting` compares canonical keys and is an equivalence relation. `reference` forgives (see `lenient`), is reflexive and
symmetric, and leaves some pairs undecided: formulas that our grammar does not read, which `symbolic` may.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from services.core.equivalence.evaluate import is_open
from services.core.equivalence.forms import Form, Scalar, Words
from services.core.equivalence.lenient import same
from services.core.equivalence.reading import Reading, read_answer
from services.core.equivalence.spellings import read_choice, read_choices, read_clock, read_date
from services.core.equivalence.typography import MAX_CHARS, without_text_commands, words_of


class Mode(StrEnum):
    """What equality means: strict, for grouping votes; or forgiving, against a reference."""

    VOTING = "voting"
    REFERENCE = "reference"


class Method(StrEnum):
    """Which comparison decided."""

    EXACT = "exact"  # the same text but for typography
    CANONICAL = "canonical"  # the same canonical key
    LENIENT = "lenient"  # what reference grading forgives
    TEXT = "text"  # words, choices, times
    SYMBOLIC = "symbolic"  # computer algebra
    REFUSED = "refused"  # too long to be compared but as text


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two answers are equal, what decided, and whether it was cut short by the clock."""

    equal: bool
    method: Method
    timed_out: bool = False


_GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})+")
# Groups that no list would hold: 1, 000 and 11, 111, 111.
_SPACED_GROUPS = re.compile(r"-?\d{1,3}(?:, \d{3}){2,}|-?\d{1,3}(?:, \d{3})*, 0\d\d")
# A list may well hold 2 and 5; nobody lists 0 first.
_DECIMAL_COMMA = re.compile(r"-?0,\d+")
_RANGE = re.compile(r"\d+(?: (?:to|\\text\{ ?to ?\}) \d+)+")
# , n \in \mathbb{Z}, which says what n is as everyone takes it
_QUALIFIED = re.compile(
    r"(.*\S),? *(?:\(|\\text\{ *(?:for|where|with)[a-z ]*\}|for|where|with)? *"
    r"[a-z] *(?:\\in *\\mathbb *\{?[ZN]\}?\)?|\\text\{ *is an integer\}|is an integer)"
)
_WORD_TO = re.compile(r"\s*(?:to|\\text\{ ?to ?\})\s*")
_HOURS = re.compile(r"(\d+) ?h (\d+) ?m(?:in)?")
_LETTER_UNIT = re.compile(r"(-?[\d.,/]+) ([mgshL])")
_SQUEEZED = re.compile(r"(?<!\d)\s+|\s+(?!\d)|\{(?=\w\})|(?<=\{\w)\}")
# What the computer algebra reads and we may not: a formula, by its signs.
_FORMULA = re.compile(r"[\\^_=]|[\d)]\s*[-+*/]\s*[\d(A-Za-z]")


def quick_verdict(gold: str, pred: str, mode: Mode) -> Verdict | None:
    """The verdict, or None where only computer algebra could tell. Symmetric in `gold` and `pred`."""
    if gold.strip() == pred.strip():
        return Verdict(True, Method.EXACT)
    if len(gold) > MAX_CHARS or len(pred) > MAX_CHARS:
        return Verdict(False, Method.REFUSED)
    a, b = read_answer(gold), read_answer(pred)
    if not a.text or not b.text:
        return Verdict(False, Method.EXACT)
    if a.text == b.text or a.key == b.key:
        return Verdict(True, Method.EXACT if a.text == b.text else Method.CANONICAL)
    if mode is Mode.VOTING:
        return Verdict(False, Method.CANONICAL)
    return _against_reference(a, b)


def _against_reference(a: Reading, b: Reading) -> Verdict | None:
    for compare in (_as_choices, _as_several_choices, _as_times):
        verdict = compare(a, b)
        if verdict is not None:
            return Verdict(verdict, Method.TEXT)
    if _alike(a, b) or _reread(a, b) or _reread(b, a):
        return Verdict(True, Method.LENIENT)
    if _squeezed(a.text) == _squeezed(b.text):
        return Verdict(True, Method.TEXT)
    if a.form is not None and b.form is not None:
        return None if _open(a.form, b.form) else Verdict(False, Method.LENIENT)
    if _in_words(a.text) == _in_words(b.text) != "":
        return Verdict(True, Method.TEXT)
    return None if _is_formula(a) and _is_formula(b) else Verdict(False, Method.TEXT)


def _as_choices(a: Reading, b: Reading) -> bool | None:
    ours, theirs = read_choice(a.text), read_choice(b.text)
    if ours is None or theirs is None:
        for choice, other in ((ours, b), (theirs, a)):
            if choice is not None and choice.rest and _alike(read_answer(choice.rest), other):
                return True
        return None
    if ours.letter == theirs.letter:
        return True
    return ours.letter.upper() == theirs.letter.upper() and (ours.dressed or theirs.dressed)


def _as_several_choices(a: Reading, b: Reading) -> bool | None:
    """AC is A, C where one of the two says that it lists choices; beside anything else, letters are letters."""
    ours, theirs = read_choices(a.text), read_choices(b.text)
    if ours is None or theirs is None or not (ours[1] or theirs[1]):
        return None
    return ours[0] == theirs[0]


def _alike(a: Reading, b: Reading) -> bool:
    return a.key == b.key or (a.form is not None and b.form is not None and same(a.form, b.form))


def _as_times(a: Reading, b: Reading) -> bool | None:
    ours, theirs = read_clock(a.text), read_clock(b.text)
    if ours is not None and theirs is not None:
        return ours.same(theirs)
    for clock, told, other in ((ours, a, b), (theirs, b, a)):
        if clock is not None and ":" in told.text and isinstance(other.form, Scalar):
            return False  # 9:03 is no 3, though 9:3 is
    dates = read_date(a.text), read_date(b.text)
    return dates[0] == dates[1] if None not in dates else None


def _reread(a: Reading, b: Reading) -> bool:
    """Whether another reading of `a` says what `b` says: `100,200` may be a list, `0,5` a decimal, `1 to 2` a ratio."""
    texts = []
    if _GROUPED.fullmatch(a.text) and ",0" not in a.text:
        texts.append(a.text.replace(",", ", "))
    if _SPACED_GROUPS.fullmatch(a.text):
        texts.append(a.text.replace(", ", ","))
    if _DECIMAL_COMMA.fullmatch(a.text):
        texts.append(a.text.replace(",", "."))
    qualified = _QUALIFIED.fullmatch(a.text)
    if qualified:
        texts.append(qualified[1].rstrip(", "))
    if _RANGE.fullmatch(a.text):
        texts.append(_WORD_TO.sub(":", a.text))
    hours = _HOURS.fullmatch(a.text)
    if hours:
        texts.append(f"{hours[1]} hours {hours[2]} minutes")
    unit = _LETTER_UNIT.fullmatch(a.text)
    if unit:
        texts.append(rf"{unit[1]} \text{{{unit[2]}}}")
    return any(_alike(read_answer(text), b) for text in texts)


def _open(a: Form, b: Form) -> bool:
    """Whether keys that differ leave a doubt: some operators have no value here."""
    return any(isinstance(form, Scalar) and is_open(form.node) for form in (a, b))


def _is_formula(reading: Reading) -> bool:
    if reading.form is None:
        return _FORMULA.search(reading.text) is not None
    return not isinstance(reading.form, Words)


def _squeezed(text: str) -> str:
    return _SQUEEZED.sub("", without_text_commands(text))


def _in_words(text: str) -> str:
    """The words of a text without numbers: punctuation means nothing there, and much beside digits."""
    return "" if any(char.isdigit() for char in text) else words_of(text)

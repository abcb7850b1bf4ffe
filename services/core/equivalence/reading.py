"""From the text of an answer to the form that it has: the one place where all readings meet. Pure; total."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from services.core.equivalence.evaluate import Point, evaluate, scalar
from services.core.equivalence.forms import (
    Bag,
    Equation,
    Form,
    Numeral,
    Ordered,
    Ratio,
    Residue,
    Scalar,
    Solutions,
    Words,
)
from services.core.equivalence.intervals import RealSet
from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.lexicon import CONSTANTS, SEPARATORS, SHORT_WORDS
from services.core.equivalence.matrices import Matrix, name_of
from services.core.equivalence.relations import read_relation, set_of_reals
from services.core.equivalence.statements import parse
from services.core.equivalence.tree import Node, contains, number
from services.core.equivalence.typography import MAX_CHARS, tidy, without_text_commands, words_of
from services.core.equivalence.units import Unit, read_unit, scaled_words

# A few words of plain text, which are no products of their letters.
_SENTENCE = re.compile(r"(?:(?:an?|the) )?(?:[A-Za-z'-]{2,} )+[A-Za-z'-]{2,}|(?:an?|the) [A-Za-z'-]{2,}", re.IGNORECASE)
_ALL_REALS_BUT = re.compile(
    r"(?:all )?(?:the )?reals?(?: numbers?)?(?: [a-z])? except(?: for)? (?:[a-z] ?= ?)?([^a-z{}]+)"
)
_CACHED = 8192
# Trees of longer answers are large, and longer answers are seldom seen twice.
_CACHED_CHARS = 200


@dataclass(frozen=True)
class Reading:
    """An answer read: its tidy text, and its form when it is of the grammar. `key` names its class."""

    text: str
    form: Form | None

    @property
    def key(self) -> str:
        return f"~{self.text}" if self.form is None else self.form.key


def read_answer(answer: str) -> Reading:
    """Never raises; an answer outside the grammar is its own tidy text."""
    return _remembered(answer) if len(answer) <= _CACHED_CHARS else _read_answer(answer)


def _read_answer(answer: str) -> Reading:
    if len(answer) > MAX_CHARS:
        return Reading(answer.strip(), None)
    text = tidy(answer)
    form: Form | None
    try:
        form = _form(text)
        form.key  # noqa: B018 - some forms turn out to have no value only when they are named
    except (Unreadable, ArithmeticError, ValueError):
        # Beside our own, mpmath's: a pole, an overflow.
        form = _in_words(text)
    except RecursionError:
        form = None
    return Reading(text, form)


_remembered = lru_cache(maxsize=_CACHED)(_read_answer)


def _form(text: str) -> Form:
    exceptions = _ALL_REALS_BUT.fullmatch(without_text_commands(text).strip())
    if exceptions is not None:
        text = rf"\mathbb{{R}} \setminus \{{{exceptions[1]}\}}"
    if (len(text) > 1 and text.isalpha() and not _product(text)) or _is_sentence(text):
        return Words(words_of(text))
    return read(parse(text))


def _is_sentence(text: str) -> bool:
    return _SENTENCE.fullmatch(text) is not None and not SEPARATORS.keys() & set(text.lower().split())


def _product(letters: str) -> bool:
    """Whether letters side by side are multiplied (mn, AB) rather than spell a word."""
    if letters.lower() in SHORT_WORDS or letters in CONSTANTS:
        return letters in CONSTANTS
    return len(letters) == 2 or (len(letters) == 3 and not set("aeiouAEIOU") & set(letters))


def _in_words(text: str) -> Form | None:
    """Text without digits and formulas is words."""
    words = words_of(text)
    bare = text.replace("\\text", "").replace("\\mbox", "")
    if words and not any(char.isdigit() for char in words) and not set("\\^_=<>+*/|&%") & set(bare):
        return Words(words)
    return None


def read(node: Node) -> Form:
    """The form of a tree. Raises `Unreadable` when it has none."""
    reader = _READERS.get(node.op)
    return reader(node) if reader is not None else _scalar(node, None)


def _ordered(node: Node) -> Form:
    return Ordered(tuple(read(kid) for kid in node.kids), node.name)


def _numeral(node: Node) -> Form:
    digits, _, base = node.name.partition("_")
    return Numeral(digits.lstrip("0") or "0", _BASES.get(base.lower(), base.lower()))


def _residue(node: Node) -> Form:
    value, modulus = (scalar(kid, Point()) for kid in node.kids)
    return Residue(f"{name_of(value)} mod {name_of(modulus)}")


_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
          "ten": "10", "twelve": "12", "sixteen": "16"}  # fmt: skip


def _scalar(node: Node, unit: Unit | None) -> Form:
    if node.op == "symbol" and node.name == "ℝ":
        reals = set_of_reals(node, None)
        if reals is not None:
            return Solutions(reals, None)
    if node.op in ("percent", "degrees") and unit is None:
        node, unit = node.kids[0], read_unit("percent" if node.op == "percent" else "degrees")
    elif node.op == "negate" and node.kids[0].op in ("percent", "degrees") and unit is None:
        inner = node.kids[0]
        node, unit = Node("negate", inner.kids), read_unit("percent" if inner.op == "percent" else "degrees")
    if contains(node, "plusminus"):
        both = (Scalar(node, unit, 1), Scalar(node, unit, -1))
        return Bag(both, False)
    evaluate(node, Point())
    return Scalar(node, unit)


def _quantity(node: Node) -> Form:
    (inner,) = node.kids
    scale, words = scaled_words(node.name)
    unit = read_unit(words)
    if scale != 1:
        inner = Node("multiply", (number(scale), inner))
    if inner.op == "based":
        raise Unreadable
    if inner.op in ("group", "set", "matrix"):
        return read(inner)
    return _scalar(inner, unit)


def _ratio(node: Node) -> Form:
    parts = [read(kid) for kid in node.kids]
    scalars = tuple(part for part in parts if isinstance(part, Scalar) and not isinstance(part.value(), Matrix))
    if len(scalars) != len(parts):
        raise Unreadable
    return Ratio(scalars)


def _bag(node: Node) -> Form:
    """A set or a list; `x<1 or x>3` is one set of reals, `p=5,q=2;p=7,q=2` a list of points."""
    if node.op == "list":
        groups = _semicolon_groups(node)
        if groups is not None:
            return groups
    forms: list[Form] = []
    for kid in _each_excluded(node):
        form = read(kid)
        forms.extend(form.items if isinstance(form, Bag) and not form.braces else [form])
    solutions = [form for form in forms if isinstance(form, Solutions)]
    if node.op == "list" and len(solutions) == len(forms) and len({form.name for form in solutions}) == 1:
        return Solutions(_joined(solutions, node.name), solutions[0].name)
    return Bag(tuple(_continued(forms)), node.op == "set")


def _each_excluded(node: Node) -> tuple[Node, ...]:
    """`x \\ne 1, 2` excludes both."""
    first, *rest = node.kids or (Node("set"),)
    if first.op != "relation" or first.name != "!=" or any(kid.op == "relation" for kid in rest):
        return node.kids
    return (first, *(Node("relation", (first.kids[0], kid), "!=") for kid in rest))


def _joined(solutions: list[Solutions], separators: str) -> RealSet:
    """`or` unites, `and` intersects; a comma does what leaves something."""
    united = both = solutions[0].reals
    for form in solutions[1:]:
        united, both = united.union(form.reals), both.intersection(form.reals)
    if "or" in separators or solutions[0].name is None:
        return united
    return both if both.intervals or "and" in separators else united


def _continued(forms: list[Form]) -> list[Form]:
    """`n = 1, 2, 3` names every item, not the first alone."""
    first = forms[0] if forms else None
    rest = forms[1:]
    if not isinstance(first, Equation) or first.value is None or any(isinstance(f, Equation) for f in rest):
        return forms
    return [first.value, *rest]


def _semicolon_groups(node: Node) -> Form | None:
    """Lists within a list: `;` separates points whose coordinates `,` separates."""
    separators = node.name.split(" ")
    if not {",", ";"} <= set(separators):
        return None
    groups: list[list[Node]] = [[]]
    for kid, separator in zip(node.kids, [*separators, ";"], strict=True):
        groups[-1].append(kid)
        if separator in (";", "or"):
            groups.append([])
    groups.pop()
    if len({len(group) for group in groups}) != 1:
        return None
    points = []
    for group in groups:
        forms = [read(kid) for kid in group]
        values = [f.value if isinstance(f, Equation) and f.value is not None else f for f in forms]
        points.append(Ordered(tuple(values), "()"))
    return Bag(tuple(points), False)


def _combination(node: Node) -> Form:
    left, right = (_operand(kid) for kid in node.kids)
    match node.op:
        case "union":
            return Solutions(left.union(right), None)
        case "intersection":
            return Solutions(left.intersection(right), None)
    return Solutions(left.intersection(right.complement()), None)


def _operand(node: Node) -> RealSet:
    form = None if node.op == "symbol" else read(node)
    found = set_of_reals(node, form)
    if found is None:
        raise Unreadable
    return found


_READERS: dict[str, Callable[[Node], Form]] = {
    "list": _bag, "set": _bag, "group": _ordered, "union": _combination, "intersection": _combination,
    "minus_set": _combination, "quantity": _quantity, "ratio": _ratio, "based": _numeral, "residue": _residue,
    "relation": lambda node: read_relation(node, read), "builder": lambda node: read(node.kids[1]),
    "words": lambda node: Words(words_of(node.name)),
}  # fmt: skip

"""Grading against a reference: whether two forms mean the same answer, forgiving what a teacher forgives. Pure.

Forgiven: a unit, a percent sign, `x =`, the dress of a choice, brackets around a list in order, an interval written
as an inequality. Not forgiven: another value, another order, another bracket, a contradicting unit. Symmetric by
construction (the two are put in one order first), not transitive (5 cm is 5, 5 is 5 m).
"""

from services.core.equivalence.amounts import amounts_agree, is_vector, quotient_agrees
from services.core.equivalence.forms import (
    Bag,
    Equation,
    Form,
    Inequality,
    Numeral,
    Ordered,
    Ratio,
    Residue,
    Scalar,
    Solutions,
    Words,
    proportions,
)
from services.core.equivalence.intervals import RealSet
from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.relations import infinite, interval_of, name_key
from services.core.equivalence.spellings import gist, number_in_words
from services.core.equivalence.tree import Node, numerator

_RANK = {kind: rank for rank, kind in enumerate(
    (Words, Numeral, Residue, Scalar, Ratio, Ordered, Bag, Inequality, Solutions, Equation))}  # fmt: skip
_MAX_ITEMS = 60


def same(a: Form, b: Form) -> bool:
    """Whether `a` and `b` mean the same answer."""
    if a.key == b.key:
        return True
    first, second = sorted((a, b), key=lambda form: (_RANK[type(form)], form.key))
    try:
        return _of_one_kind(first, second) if type(first) is type(second) else _of_two_kinds(first, second)
    except (Unreadable, ArithmeticError, ValueError):
        return False


def _of_one_kind(a: Form, b: Form) -> bool:
    match a, b:
        case Scalar(), Scalar():
            return amounts_agree(a, b)
        case Words(), Words():
            return gist(a.words) == gist(b.words)
        case Ratio(), Ratio():
            return a.proportion == b.proportion and not (a.clocklike and b.clocklike)
        case Ordered(), Ordered():
            return _brackets_agree(a, b) and _in_order(a.items, b.items)
        case Bag(), Bag():
            return _bags(a, b)
        case Solutions(), Solutions():
            return a.reals.key == b.reals.key and (a.name is None or b.name is None)
        case Equation(), Equation():
            return _equations(a, b)
    return False


def _of_two_kinds(a: Form, b: Form) -> bool:
    """`a` is of the kind of lower rank."""
    match a, b:
        case _, Equation(value=value) if value is not None:
            return same(a, value)
        case _, Bag(items=(item, *others)) if all(other.key == item.key for other in others):
            return same(a, item)
        case Words(), _:
            return _in_words(gist(a.words), b)
        case Scalar(), _:
            return _number_and_shape(a, b)
        case _, Solutions():
            return _shape_and_solutions(a, b)
        case Ordered(), Bag(braces=False):
            return (a.brackets in ("()", "<>") or len(a.items) > 2) and _in_order(a.items, b.items)
    return False


def _number_and_shape(a: Scalar, b: Form) -> bool:
    match b:
        case Ratio(parts=(above, below)):
            return a.unit is None and quotient_agrees(a, above, below)
        case Ordered():
            return is_vector(a, b)
    return False


def _shape_and_solutions(a: Form, b: Solutions) -> bool:
    match a:
        case Ordered():
            return RealSet.of([interval_of(a)]).key == b.reals.key
        case Bag():
            return _finite(a, b)
    return False


def _in_order(a: tuple[Form, ...], b: tuple[Form, ...]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _brackets_agree(a: Ordered, b: Ordered) -> bool:
    brackets = {form.brackets.replace("<>", "()") for form in (a, b)}
    return len(a.items) > 2 or len(brackets) == 1


def _bags(a: Bag, b: Bag) -> bool:
    """Each item of one has its equal in the other; named items go with their names."""
    stems, names = _stems(a) | _stems(b), (_names(a), _names(b))
    if all(names) and (len(stems) > 1 or set(names[0]) == set(names[1])):
        return _matched(a.items, b.items)
    if len(stems) > 1:
        return _in_order(a.items, b.items)
    return _matched(a.items, b.items) or _matched(_values(a), _values(b))


def _values(bag: Bag) -> tuple[Form, ...]:
    return tuple(item.value if isinstance(item, Equation) and item.value else item for item in bag.items)


def _stems(bag: Bag) -> set[str]:
    """The names of the items: `x=1, y=2` has an order, theirs; `x_1=1, x_2=2` lists values of one unknown."""
    return {name.name.partition("_")[0] if name.op == "symbol" else name_key(name) for name in _names(bag)}


def _names(bag: Bag) -> list[Node]:
    return [item.name for item in bag.items if isinstance(item, Equation) and item.name is not None]


def _matched(a: tuple[Form, ...], b: tuple[Form, ...]) -> bool:
    ours, theirs = ({item.key: item for item in items} for items in (a, b))
    left = [ours[key] for key in sorted(ours.keys() - theirs.keys())]
    right = [theirs[key] for key in sorted(theirs.keys() - ours.keys())]
    if len(ours) != len(theirs) or len(left) > _MAX_ITEMS:
        return False
    for item in left:
        # A set in a set is not its member.
        fitting = (other for other in right if isinstance(item, Bag) == isinstance(other, Bag))
        partner = next((other for other in fitting if same(item, other)), None)
        if partner is None:
            return False
        right.remove(partner)
    return True


def _equations(a: Equation, b: Equation) -> bool:
    if a.value is None or b.value is None or a.name is None or b.name is None:
        return _same_curve(a, b)
    if _same_curve(a, b):
        return True
    if name_key(a.name) == name_key(b.name):
        return same(a.value, b.value)
    # f(x) = 2x+3 and y = 2x+3 tell the same function; x = 5 and y = 5 are two lines.
    return isinstance(a.value, Scalar) and bool(a.value.symbols) and _is_y(a.name, b.name) and same(a.value, b.value)


def _same_curve(a: Equation, b: Equation) -> bool:
    """Equal after clearing denominators: y = 1/x is xy = 1."""
    if a.difference is None or b.difference is None:
        return False
    ours, theirs = (proportions(numerator(form.difference), signed=False) for form in (a, b) if form.difference)
    return ours == theirs


def _is_y(*names: Node) -> bool:
    return all(name.op == "call" or name == Node("symbol", name="y") for name in names)


def _finite(a: Bag, b: Solutions) -> bool:
    points = [interval.low for interval in b.reals.intervals if interval.low == interval.high]
    return len(points) == len(b.reals.intervals) and {p.key for p in points} == {item.key for item in a.items}


def _in_words(words: str, other: Form) -> bool:
    match other:
        case Bag(items=()):
            return words == "none"
        case Solutions():
            return (words == "none" and not other.reals.intervals) or (
                words == "reals" and other.reals.key == "(-∞; ∞)"
            )
        case Ordered() if words == "reals":
            return RealSet.of([interval_of(other)]).key == "(-∞; ∞)"
        case Scalar():
            if words == "infinite":
                return infinite(other.node) > 0
            found = number_in_words(words)
            return found is not None and other.names == (str(found),)
    return False

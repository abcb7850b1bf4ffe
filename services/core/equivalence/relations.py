"""Reading chains of relations: what `x = 5`, `-2 \\le x < 7`, `x \\in [0,1)` and `a = b = c` say. Pure; total."""

from collections.abc import Callable
from fractions import Fraction

from services.core.equivalence import numeric
from services.core.equivalence.evaluate import Point, evaluate, scalar
from services.core.equivalence.forms import Bag, Equation, Form, Inequality, Ordered, Residue, Scalar, Solutions
from services.core.equivalence.intervals import HIGHEST, LOWEST, REALS, End, Interval, RealSet, point
from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.matrices import Matrix
from services.core.equivalence.numeric import Value
from services.core.equivalence.tree import Node, contains, symbols_in

_ORDERINGS = {"<", "<=", ">", ">="}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!=", "=": "="}
_NUMBER_SETS = {"ℝ"}
Reader = Callable[[Node], Form]


def read_relation(node: Node, read: Reader) -> Form:
    """The form of a relation node. `read` reads its sides."""
    kids, relations = list(node.kids), node.name.split(" ")
    while len(relations) > 1 and relations[-1] == "~":
        kids.pop()
        relations.pop()
    if relations == ["~"]:
        # x \approx 3.5 tells a value; \frac{1}{3} \approx 0.33 is exact before it.
        return read(kids[1] if is_name(kids[0]) else kids[0])
    if set(relations) <= {"="}:
        return _equation(kids, read)
    if len(relations) == 1:
        return _single(kids[0], relations[0], kids[1], read)
    if set(relations) <= _ORDERINGS:
        return _between(kids, relations)
    if relations[0] in ("=", "mod") and set(relations[1:]) <= _ORDERINGS | {"="}:
        return _single(kids[0], relations[0], kids[1], read)
    raise Unreadable


def is_name(node: Node) -> bool:
    """Whether `node` only names a quantity: x, f(x), a_3, |AB|, A:B, \\frac{NO}{BO}, (p,q); no sum, no number."""
    match node.op:
        case "symbol":
            return node.name not in ("…", "ℝ", "ℤ", "ℕ", "ℚ", "ℂ")
        case "constant":
            return node.name in ("e", "i")
        case "call" if node.name.endswith("()"):
            return True
        case "call" if node.name in (
            "abs",
            "norm",
            "sin",
            "cos",
            "tan",
            "cot",
            "sec",
            "csc",
            "det",
            "arg",
            "deg",
            "Re",
            "Im",
            "log",
            "ln",
        ):
            return is_name(node.kids[0])
        case "multiply" | "divide" | "ratio" | "group" | "matrix":
            return all(is_name(kid) for kid in node.kids)
    return False


def _equation(kids: list[Node], read: Reader) -> Form:
    first, last = kids[0], kids[-1]
    if is_name(last) and not is_name(first):
        first, last = last, first
    sides = (read(first), read(last))
    if len(kids) > 2 and not is_name(first):
        if all(isinstance(side, Scalar) and not side.symbols for side in sides):
            return sides[1]
        raise Unreadable
    name, value = (first, sides[1]) if is_name(first) else (None, None)
    if name is not None and isinstance(value, Scalar) and value.matrix is not None:
        return Equation(None, name, value, (name_key(name), value.key))
    return _compared(first, last, sides, name)


def _compared(first: Node, last: Node, sides: tuple[Form, Form], name: Node | None) -> Form:
    """The equation of `first` and `last`, read as `sides`; `name` is the first where it is a mere name."""
    value = None if name is None else sides[1]
    if all(isinstance(side, Scalar) and side.unit is None for side in sides) and not contains(last, "plusminus"):
        difference = Node("add", (first, Node("negate", (last,))))
        if isinstance(evaluate(difference, Point()), Matrix):
            return Equation(None, name, value, tuple(sorted(side.key for side in sides)))
        if not symbols_in(difference):
            return sides[1]
        return Equation(difference, name, value)
    if name is None:
        raise Unreadable
    return Equation(None, name, value, (sides[0].key, sides[1].key))


def _single(left: Node, relation: str, right: Node, read: Reader) -> Form:
    if relation == "in":
        return _membership(left, right, read)
    if relation == "mod" and right.op == "residue":
        return Residue(f"{read(left).key} = {read(right).key}")
    if relation == "!=" and contains(right, "plusminus") and is_name(left):
        return _neither(left, read(right))
    if relation in _ORDERINGS or relation == "!=":
        return _inequality(left, relation, right)
    return Equation(None, None, None, (f"{read(left).key} {relation}", read(right).key))


def _neither(name: Node, values: Form) -> Form:
    """`x \\ne \\pm 1`."""
    if not isinstance(values, Bag):
        raise Unreadable
    ends = [_end(item).value for item in values.items]
    return Solutions(RealSet.of(point(end) for end in ends if end is not None).complement(), name_key(name))


def _membership(left: Node, right: Node, read: Reader) -> Form:
    members = read(right)
    if isinstance(members, Ordered) and len(members.items) == 2:
        return Solutions(RealSet.of([interval_of(members)]), name_key(left))
    if isinstance(members, Solutions):
        return Solutions(members.reals, name_key(left))
    if isinstance(members, Bag):
        return members
    return Equation(None, None, None, (f"{name_key(left)} in", members.key))


def name_key(node: Node) -> str:
    """How a name is told from another: by the value that it has at a sample point."""
    if node.op in ("group", "matrix"):
        return f"({', '.join(name_key(kid) for kid in node.kids)})"
    if node.op == "ratio":
        return ":".join(name_key(kid) for kid in node.kids)
    return numeric.name_of(scalar(node, Point(1)))


def _inequality(left: Node, relation: str, right: Node) -> Form:
    for name, bound, says in ((left, right, relation), (right, left, _FLIPPED[relation])):
        if is_name(name) and not symbols_in(bound):
            return _bounded(name, _beyond(says, scalar(bound, Point())))
    difference = Node("add", (left, Node("negate", (right,))))
    names = symbols_in(difference)
    if len(names) == 1:
        (unknown,) = names
        line = _line(difference, unknown)
        if line is not None:
            slope, offset = line
            says = _FLIPPED[relation] if slope < 0 else relation
            return Solutions(_beyond(says, numeric.divide(-offset, slope)), numeric.name_of(numeric.point(unknown, 1)))
    if relation == "!=":
        return Equation(difference, None, None, ("!=",))
    if relation in (">", ">="):
        difference = Node("negate", (difference,))
    return Inequality(difference, "<" if relation in ("<", ">") else "<=")


def _bounded(name: Node, reals: RealSet) -> Solutions:
    """`name` in `reals`; of an absolute value, what it is the absolute value of."""
    if name.op != "call" or name.name != "abs" or name.kids[0].op != "symbol":
        return Solutions(reals, name_key(name))
    sizes = reals.intersection(RealSet.of([Interval(End(Fraction(0)), HIGHEST, True, False)]))
    return Solutions(sizes.union(sizes.negated()), name_key(name.kids[0]))


def _line(node: Node, name: str) -> tuple[Value, Value] | None:
    """(a, b) when `node` is a*name + b with real a != 0."""
    values = [scalar(node, Point(bound={name: Fraction(x)})) for x in (0, 1, 2, 5)]
    if not all(numeric.is_real(value) for value in values):
        return None
    slope = numeric.add(values[1], -values[0])
    for x, value in ((2, values[2]), (5, values[3])):
        expected = numeric.add(values[0], numeric.multiply(slope, Fraction(x)))
        if numeric.name_of(expected) != numeric.name_of(value):
            return None
    return (slope, values[0]) if slope != 0 else None


def _beyond(relation: str, bound: Value) -> RealSet:
    """The reals x with `x relation bound`."""
    if not numeric.is_real(bound):
        raise Unreadable
    end = End(bound)
    match relation:
        case "<" | "<=":
            return RealSet.of([Interval(LOWEST, end, False, relation == "<=")])
        case ">" | ">=":
            return RealSet.of([Interval(end, HIGHEST, relation == ">=", False)])
        case "!=":
            return RealSet.of([point(bound)]).complement()
    raise Unreadable


def _between(kids: list[Node], relations: list[str]) -> Form:
    """`a < x <= b`: the reals between, named by what stands in the middle; longer chains as they are."""
    if len({relation[0] for relation in relations}) != 1:
        raise Unreadable
    if relations[0][0] == ">":
        kids, relations = kids[::-1], [_FLIPPED[relation] for relation in reversed(relations)]
    if len(kids) == 3 and symbols_in(kids[1]) and not symbols_in(kids[0]) and not symbols_in(kids[2]):
        below = _inequality(kids[0], relations[0], kids[1])
        above = _inequality(kids[1], relations[1], kids[2])
        if isinstance(below, Solutions) and isinstance(above, Solutions):
            return Solutions(below.reals.intersection(above.reals), below.name)
    names = [numeric.name_of(scalar(kid, Point(1))) for kid in kids]
    return Equation(None, None, None, tuple(f"{a} {b}" for a, b in zip(names, [*relations, ""], strict=True)))


def interval_of(form: Ordered) -> Interval:
    """The interval that a pair of ends means. Raises `Unreadable` when an end is no real number."""
    if len(form.items) != 2 or form.brackets == "<>":
        raise Unreadable
    low, high = (_end(item) for item in form.items)
    interval = Interval(low, high, form.brackets[0] == "[", form.brackets[1] == "]")
    if high < low:
        raise Unreadable
    return interval


def _end(form: Form) -> End:
    if not isinstance(form, Scalar) or form.unit is not None:
        raise Unreadable
    side = infinite(form.node)
    if side:
        return HIGHEST if side > 0 else LOWEST
    value = form.value()
    if form.symbols or isinstance(value, Matrix) or not numeric.is_real(value):
        raise Unreadable
    return End(value)


def infinite(node: Node) -> int:
    """1 for infinity, -1 for minus infinity, 0 for anything else."""
    if node.op == "constant" and node.name == "∞":
        return 1
    return -infinite(node.kids[0]) if node.op == "negate" else 0


def set_of_reals(node: Node, form: Form | None) -> RealSet | None:
    """The set of reals that an operand of a union means."""
    if node.op == "symbol" and node.name in _NUMBER_SETS:
        return REALS
    if isinstance(form, Solutions):
        return form.reals
    if isinstance(form, Ordered) and len(form.items) == 2:
        return RealSet.of([interval_of(form)])
    if isinstance(form, Bag):
        ends = [_end(item) for item in form.items]
        return RealSet.of(Interval(end, end, True, True) for end in ends if end.value is not None)
    return None

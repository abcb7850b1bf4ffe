"""The value of a parsed expression at a sample point: numbers and matrices of numbers. Pure; bounded; total."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from services.core.equivalence import numeric, powers
from services.core.equivalence.functions import FUNCTIONS, LogBase, apply
from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.matrices import Matrix, determinant, name_of, plus, product, raised
from services.core.equivalence.numeric import Undefined, Value
from services.core.equivalence.tree import Node, symbols_in

_MAX_TERMS = 300  # of a sum or product that is written out
_MAX_STEPS = 20_000  # evaluated nodes of one expression
_ONE = Fraction(1)


@dataclass
class Point:
    """Where symbols stand (`which` sample point), which sign \\pm has, and the factor between `log` and the natural
    logarithm (None: a factor of its own, since the base is not told)."""

    which: int = 0
    sign: int = 1
    log_base: LogBase = None
    bound: dict[str, Value] = field(default_factory=dict)
    steps: int = 0

    def symbol(self, name: str) -> Value:
        found = self.bound.get(name)
        return numeric.point(name, self.which) if found is None else found


def evaluate(node: Node, at: Point) -> Value | Matrix:
    """Raises `Unreadable` where `node` has no value."""
    at.steps += 1
    if at.steps > _MAX_STEPS:
        raise Undefined
    found = _OPERATIONS.get(node.op)
    if found is None:
        raise Unreadable
    return found(node, at)


def scalar(node: Node, at: Point) -> Value:
    """The value of an expression that is no matrix."""
    value = evaluate(node, at)
    if isinstance(value, Matrix):
        raise Unreadable
    return value


def _number(node: Node, at: Point) -> Value:
    if node.value is None:
        raise Unreadable
    return node.value


def _symbol(node: Node, at: Point) -> Value:
    return at.symbol(node.name)


def _constant(node: Node, at: Point) -> Value:
    ctx = numeric.context()
    match node.name:
        case "π":
            return +ctx.pi
        case "e":
            return +ctx.e
        case "i" if "i" not in at.bound:
            return ctx.mpc(0, 1)
    return at.symbol(node.name)


def _add(node: Node, at: Point) -> Value | Matrix:
    total = evaluate(node.kids[0], at)
    for kid in node.kids[1:]:
        total = plus(total, evaluate(kid, at))
    return total


def _multiply(node: Node, at: Point) -> Value | Matrix:
    total = evaluate(node.kids[0], at)
    for kid in node.kids[1:]:
        total = product(total, evaluate(kid, at))
    return total


def _divide(node: Node, at: Point) -> Value | Matrix:
    below = scalar(node.kids[1], at)
    above = evaluate(node.kids[0], at)
    if isinstance(above, Matrix):
        return product(above, numeric.divide(_ONE, below))
    return numeric.divide(above, below)


def _negate(node: Node, at: Point) -> Value | Matrix:
    return product(Fraction(-1), evaluate(node.kids[0], at))


def _plusminus(node: Node, at: Point) -> Value | Matrix:
    value = evaluate(node.kids[0], at)
    return value if (at.sign > 0) == (node.name == "+") else product(Fraction(-1), value)


def _power(node: Node, at: Point) -> Value | Matrix:
    base, exponent = evaluate(node.kids[0], at), scalar(node.kids[1], at)
    if not isinstance(base, Matrix):
        return powers.power(base, exponent)
    return raised(base, exponent)


def _percent(node: Node, at: Point) -> Value:
    return numeric.divide(scalar(node.kids[0], at), Fraction(100))


def _degrees(node: Node, at: Point) -> Value:
    return numeric.multiply(scalar(node.kids[0], at), numeric.context().pi / 180)


def _factorial(node: Node, at: Point) -> Value:
    return powers.factorial(scalar(node.kids[0], at))


def _matrix(node: Node, at: Point) -> Matrix:
    return Matrix(tuple(scalar(kid, at) for kid in node.kids), node.width)


def _big(node: Node, at: Point) -> Value:
    """A finite sum or product is written out; any other is a value of its own, named by its parts."""
    name, _, variable = node.name.partition(" ")
    body, lower, upper = node.kids
    low, high = scalar(lower, at), scalar(upper, at)
    first, last = numeric.as_integer(low), numeric.as_integer(high)
    if name not in ("sum", "prod") or not variable or first is None or last is None or last - first > _MAX_TERMS:
        inside = Point(at.which, at.sign, at.log_base, {**at.bound, variable: numeric.point("□", at.which)})
        parts = (name_of(low), name_of(high), name_of(evaluate(body, inside)))
        return numeric.point(f"{name} {' '.join(parts)}", at.which)
    total = Fraction(name == "prod")
    for n in range(first, last + 1):
        inside = Point(at.which, at.sign, at.log_base, {**at.bound, variable: Fraction(n)}, at.steps)
        term = scalar(body, inside)
        total = numeric.add(total, term) if name == "sum" else numeric.multiply(total, term)
        at.steps = inside.steps
    return total


def _call(node: Node, at: Point) -> Value:
    if node.name == "det":
        return determinant(evaluate(node.kids[0], at))
    if node.name not in FUNCTIONS:
        # A function that is not told has a value of its own for each argument.
        arguments = " ".join(name_of(evaluate(kid, at)) for kid in node.kids)
        return numeric.point(f"{node.name} {arguments}", at.which)
    return apply(node.name, [scalar(kid, at) for kid in node.kids], at.log_base)


_OPERATIONS: dict[str, Callable[[Node, Point], Value | Matrix]] = {
    "number": _number, "symbol": _symbol, "constant": _constant, "add": _add, "multiply": _multiply,
    "divide": _divide, "negate": _negate, "plusminus": _plusminus, "power": _power, "percent": _percent,
    "degrees": _degrees, "factorial": _factorial, "matrix": _matrix, "big": _big, "call": _call,
}  # fmt: skip


def branches(node: Node) -> bool:
    """Whether the value of `node` at negative points depends on the branch of a root or a logarithm of symbols."""
    waiting = [node]
    while waiting:
        seen = waiting.pop()
        inner = seen.op == "power" or (seen.op == "call" and seen.name in _BRANCHING)
        whole = seen.op == "power" and seen.kids[1].value is not None and seen.kids[1].value.denominator == 1
        if inner and not whole and symbols_in(seen):
            return True
        waiting.extend(seen.kids)
    return False


def is_open(node: Node) -> bool:
    """Whether `node` holds an operator that has no value here: an integral, a limit, a sum to n."""
    waiting = [node]
    while waiting:
        seen = waiting.pop()
        if seen.op == "big" and (seen.name.split(" ")[0] not in ("sum", "prod") or any(map(symbols_in, seen.kids[1:]))):
            return True
        waiting.extend(seen.kids)
    return False


_BRANCHING = frozenset(
    [
        "root",
        "ln",
        "lg",
        "log",
        "arcsin",
        "arccos",
        "arctan",
        "arccot",
        "arcsec",
        "arccsc",
        "arcsinh",
        "arccosh",
        "arctanh",
    ]
)

"""What a parsed answer is made of: one frozen node type, told apart by `op`. No arithmetic here."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Op = Literal[
    # scalars
    "number", "symbol", "constant", "add", "multiply", "divide", "negate", "power", "plusminus", "call", "factorial",
    "percent", "degrees", "big", "opaque",
    # shapes
    "group", "set", "builder", "matrix", "ratio", "based", "residue", "union", "intersection", "minus_set",
    # statements
    "relation", "list", "quantity", "words",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """`kids` are the operands in order; `name` is what the op needs besides them (a symbol's name, the brackets of a
    group, the relations of a chain joined by spaces, the words of a unit)."""

    op: Op
    kids: tuple["Node", ...] = ()
    name: str = ""
    value: Fraction | None = None
    width: int = 0  # of a matrix: its columns


def number(value: Fraction | int) -> Node:
    return Node("number", value=Fraction(value))


def symbol(name: str) -> Node:
    return Node("symbol", name=name)


def transposed(matrix: Node) -> Node:
    """Its rows as columns."""
    rows = len(matrix.kids) // matrix.width
    return Node("matrix", tuple(kid for j in range(matrix.width) for kid in matrix.kids[j :: matrix.width]), width=rows)


def symbols_in(node: Node) -> frozenset[str]:
    """The names of the symbols that `node` depends on."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        seen = waiting.pop()
        if seen.op in ("symbol", "opaque") or (seen.op == "call" and seen.name.endswith("()")):
            found.add(seen.name)
        waiting.extend(seen.kids)
    return frozenset(found)


def contains(node: Node, *ops: Op) -> bool:
    """Whether `node` or one of its descendants is one of `ops`."""
    waiting = [node]
    while waiting:
        seen = waiting.pop()
        if seen.op in ops:
            return True
        waiting.extend(seen.kids)
    return False


def numerator(node: Node) -> Node:
    """`node` times the denominators that it is written with."""
    return _over(node)[0]


_ONE = number(1)


def _over(node: Node) -> tuple[Node, Node]:
    """(above, below), without common factors taken out; what is no sum, product, quotient or power stays whole."""
    match node.op:
        case "add":
            above, below = _over(node.kids[0])
            for kid in node.kids[1:]:
                top, bottom = _over(kid)
                if bottom == below:
                    above = Node("add", (above, top))
                else:
                    above = Node("add", (_times(above, bottom), _times(top, below)))
                    below = _times(below, bottom)
            return above, below
        case "multiply":
            tops, bottoms = zip(*map(_over, node.kids), strict=True)
            return Node("multiply", tops), Node("multiply", bottoms) if set(bottoms) != {_ONE} else _ONE
        case "divide":
            (a, b), (c, d) = map(_over, node.kids)
            return _times(a, d), _times(b, c)
        case "negate":
            top, bottom = _over(node.kids[0])
            return Node("negate", (top,)), bottom
    return node, _ONE


def _times(a: Node, b: Node) -> Node:
    if _ONE in (a, b):
        return b if a == _ONE else a
    return Node("multiply", (a, b))

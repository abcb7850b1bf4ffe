"""Grading against a reference: whether two amounts are the same, forgiving a unit that is left out, a percent sign,
the base of a logarithm; and a matrix written in brackets. Pure."""

from fractions import Fraction

from services.core.equivalence import numeric
from services.core.equivalence.evaluate import branches
from services.core.equivalence.forms import Ordered, Scalar
from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.matrices import Matrix, name_of
from services.core.equivalence.numeric import Value
from services.core.equivalence.tree import Node
from services.core.equivalence.units import compatible


def amounts_agree(a: Scalar, b: Scalar) -> bool:
    """Whether two numbers, matrices or expressions agree, their units included where both have one."""
    if a.matrix is not None or b.matrix is not None:
        return a.matrix is not None and b.matrix is not None and _values_agree(a, b)
    size = compatible(a.unit, b.unit)
    if size == 1 and _values_agree(a, b):
        return True
    if _one_percent(a, b) or _one_angle(a, b):
        return True
    if size is None or size == 1:
        return False
    return name_of(numeric.multiply(plain(a), size)) == name_of(plain(b))


def _values_agree(a: Scalar, b: Scalar) -> bool:
    if a.names == b.names:
        return True
    if a.symbols and b.symbols and a.names[0] == b.names[0] and (branches(a.node) or branches(b.node)):
        # Roots and logarithms are compared where their arguments are positive.
        return True
    if not (_has_log(a.node) or _has_log(b.node)):
        return False
    return any(name_of(a.value(0, base)) == name_of(b.value(0, base)) for base in (0, 10))


def _has_log(node: Node) -> bool:
    waiting = [node]
    while waiting:
        seen = waiting.pop()
        if seen.op == "call" and seen.name == "log" and len(seen.kids) == 1:
            return True
        waiting.extend(seen.kids)
    return False


def _one_percent(a: Scalar, b: Scalar) -> bool:
    """50% is 1/2."""
    for one, other in ((a, b), (b, a)):
        if one.unit is not None and one.unit.percent and other.unit is None:
            return name_of(numeric.divide(plain(one), Fraction(100))) == name_of(plain(other))
    return False


def _one_angle(a: Scalar, b: Scalar) -> bool:
    """90 degrees is pi/2."""
    for one, other in ((a, b), (b, a)):
        radians = other.unit is None or other.unit.dimension == (("radian", 1),)
        if one.unit is not None and one.unit.degrees and radians and not isinstance(plain(other), Fraction):
            value = numeric.multiply(plain(one), numeric.context().pi / 180)
            return name_of(value) == name_of(plain(other))
    return False


def plain(form: Scalar) -> Value:
    """The value of `form`. Raises `Unreadable` when it is a matrix."""
    value = form.value()
    if isinstance(value, Matrix):
        raise Unreadable
    return value


def is_vector(a: Scalar, b: Ordered) -> bool:
    """A column or a row is the point with its entries."""
    matrix = a.matrix
    if matrix is None:
        return False
    if b.brackets == "[]" and all(isinstance(item, Ordered) and item.brackets in ("[]", "()") for item in b.items):
        return _rows_agree(matrix, b)
    if 1 not in (matrix.width, matrix.height) or len(matrix.cells) != len(b.items):
        return False
    if b.brackets not in ("()", "<>", "[]"):
        return False
    return all(
        isinstance(item, Scalar) and item.unit is None and name_of(item.value()) == name_of(cell)
        for item, cell in zip(b.items, matrix.cells, strict=True)
    )


def _rows_agree(matrix: Matrix, rows: Ordered) -> bool:
    """`[[1,2],[3,4]]`, as programs print a matrix."""
    cells = [
        item for row in rows.items if isinstance(row, Ordered) and len(row.items) == matrix.width for item in row.items
    ]
    return len(cells) == len(matrix.cells) and all(
        isinstance(item, Scalar) and item.unit is None and name_of(item.value()) == name_of(cell)
        for item, cell in zip(cells, matrix.cells, strict=True)
    )

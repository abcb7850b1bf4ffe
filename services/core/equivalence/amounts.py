"""Grading against a reference: whether two amounts are the same, forgiving a unit that is left out, a percent sign,
the base of a logarithm; and a matrix written in brackets. Pure."""

from collections.abc import Sequence
from fractions import Fraction

from services.core.equivalence import numeric
from services.core.equivalence.evaluate import branches
from services.core.equivalence.forms import Form, Ordered, Scalar
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
    return _scaled(a, size, b)


def _scaled(a: Scalar, size: Value, b: Scalar) -> bool:
    """Whether `size` times a is b."""
    return all(name_of(numeric.multiply(plain(a, at), size)) == name_of(plain(b, at)) for at in _points(a, b))


def _points(*forms: Scalar) -> range:
    return range(3 if any(form.symbols for form in forms) else 1)


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
            return _scaled(one, Fraction(1, 100), other)
    return False


def _one_angle(a: Scalar, b: Scalar) -> bool:
    """90 degrees is pi/2."""
    for one, other in ((a, b), (b, a)):
        radians = other.unit is None or other.unit.dimension == (("radian", 1),)
        if one.unit is not None and one.unit.degrees and radians and not isinstance(plain(other), Fraction):
            return _scaled(one, numeric.context().pi / 180, other)
    return False


def quotient_agrees(whole: Scalar, above: Scalar, below: Scalar) -> bool:
    """Whether a ratio is a number."""
    return all(
        name_of(numeric.divide(plain(above, at), plain(below, at))) == name_of(plain(whole, at))
        for at in _points(whole, above, below)
    )


def plain(form: Scalar, at: int = 0) -> Value:
    """The value of `form` at a sample point. Raises `Unreadable` when it is a matrix."""
    value = form.value(at)
    if isinstance(value, Matrix):
        raise Unreadable
    return value


def is_vector(a: Scalar, b: Ordered) -> bool:
    """A column or a row is the point with its entries."""
    matrix = a.matrix
    if matrix is None:
        return False
    if b.brackets == "[]" and all(isinstance(item, Ordered) and item.brackets in ("[]", "()") for item in b.items):
        return _rows_agree(a, matrix.width, b)
    if 1 not in (matrix.width, matrix.height) or b.brackets not in ("()", "<>", "[]"):
        return False
    return _cells_agree(a, b.items)


def _rows_agree(a: Scalar, width: int, rows: Ordered) -> bool:
    """`[[1,2],[3,4]]`, as programs print a matrix."""
    cells = [item for row in rows.items if isinstance(row, Ordered) and len(row.items) == width for item in row.items]
    return _cells_agree(a, cells)


def _cells_agree(a: Scalar, items: Sequence[Form]) -> bool:
    cells = [item for item in items if isinstance(item, Scalar) and item.unit is None]
    if len(cells) != len(items):
        return False
    for at in _points(a, *cells):
        matrix = a.value(at)
        if not isinstance(matrix, Matrix) or list(map(name_of, matrix.cells)) != [name_of(plain(c, at)) for c in cells]:
            return False
    return True

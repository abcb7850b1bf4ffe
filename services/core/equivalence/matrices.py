"""Matrices of values, and the arithmetic in which numbers may be matrices. Pure; bounded."""

from dataclasses import dataclass
from fractions import Fraction

from services.core.equivalence import numeric
from services.core.equivalence.numeric import Undefined, Value


@dataclass(frozen=True)
class Matrix:
    """A rectangular array of values, row by row."""

    cells: tuple[Value, ...]
    width: int

    @property
    def height(self) -> int:
        return len(self.cells) // self.width

    def row(self, i: int) -> tuple[Value, ...]:
        return self.cells[i * self.width : (i + 1) * self.width]

    def column(self, j: int) -> tuple[Value, ...]:
        return self.cells[j :: self.width]


def name_of(value: Value | Matrix, *, inexact: bool = False) -> str:
    """The same string for the same value, another for another. `inexact`: see `numeric.name_of`."""
    if isinstance(value, Matrix):
        return f"[{value.width}: {' '.join(numeric.name_of(cell, inexact=inexact) for cell in value.cells)}]"
    return numeric.name_of(value, inexact=inexact)


def plus(a: Value | Matrix, b: Value | Matrix) -> Value | Matrix:
    """Of numbers, or of matrices of one shape. Raises `Undefined` for others."""
    if isinstance(a, Matrix) and isinstance(b, Matrix):
        if (a.width, a.height) != (b.width, b.height):
            raise Undefined
        return Matrix(tuple(map(numeric.add, a.cells, b.cells)), a.width)
    if isinstance(a, Matrix) or isinstance(b, Matrix):
        raise Undefined
    return numeric.add(a, b)


def product(a: Value | Matrix, b: Value | Matrix) -> Value | Matrix:
    """Of numbers, of a number and a matrix, of matrices."""
    if isinstance(a, Matrix) and isinstance(b, Matrix):
        if a.width != b.height:
            raise Undefined
        return Matrix(tuple(_dot(a.row(i), b.column(j)) for i in range(a.height) for j in range(b.width)), b.width)
    if isinstance(a, Matrix):
        return Matrix(tuple(numeric.multiply(cell, b) for cell in a.cells), a.width)
    if isinstance(b, Matrix):
        return product(b, a)
    return numeric.multiply(a, b)


def _dot(a: tuple[Value, ...], b: tuple[Value, ...]) -> Value:
    total: Value = Fraction(0)
    for x, y in zip(a, b, strict=True):
        total = numeric.add(total, numeric.multiply(x, y))
    return total


def raised(base: Matrix, exponent: Value) -> Value | Matrix:
    """A small positive power. Raises `Undefined` for others."""
    times = numeric.as_integer(exponent)
    if times is None or not 1 <= times <= 20:
        raise Undefined
    total: Value | Matrix = base
    for _ in range(times - 1):
        total = product(total, base)
    return total


def determinant(matrix: Value | Matrix) -> Value:
    """Raises `Undefined` where there is none, or it is long to expand."""
    if not isinstance(matrix, Matrix) or matrix.width != matrix.height or matrix.width > 6:
        raise Undefined
    return _expanded([list(matrix.row(i)) for i in range(matrix.height)])


def _expanded(rows: list[list[Value]]) -> Value:
    """Laplace along the first row."""
    if len(rows) == 1:
        return rows[0][0]
    total: Value = Fraction(0)
    for j, cell in enumerate(rows[0]):
        minor = _expanded([[*row[:j], *row[j + 1 :]] for row in rows[1:]])
        term = numeric.multiply(cell, minor)
        total = numeric.add(total, -term if j % 2 else term)
    return total

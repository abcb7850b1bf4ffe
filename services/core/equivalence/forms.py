"""What an answer says, once it is read: one frozen form for each kind, each with a key that names its class.

Two forms with the same key say the same thing, strictly: no unit is dropped, `x=5` is not 5. A key is a function of
its form alone, so equality of keys is an equivalence relation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from services.core.equivalence import numeric
from services.core.equivalence.evaluate import Point, evaluate
from services.core.equivalence.intervals import RealSet
from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.matrices import Matrix, name_of
from services.core.equivalence.numeric import Value
from services.core.equivalence.tree import Node, symbols_in
from services.core.equivalence.units import Unit


@dataclass(frozen=True)
class Scalar:
    """A number, a matrix or an expression with symbols; `sign` is what \\pm stands for in it."""

    node: Node
    unit: Unit | None = None
    sign: int = 1

    def value(self, which: int = 0, log_base: int | None = None) -> Value | Matrix:
        return evaluate(self.node, Point(which, self.sign, log_base))

    @cached_property
    def symbols(self) -> frozenset[str]:
        return symbols_in(self.node)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the value at each sample point; one is enough where the symbols do not matter."""
        if not self.symbols:
            return (name_of(self.value()),)
        found = tuple(name_of(self.value(which), inexact=True) for which in range(3))
        return found if len(set(found)) > 1 else found[:1]

    @property
    def matrix(self) -> Matrix | None:
        found = self.value()
        return found if isinstance(found, Matrix) else None

    @cached_property
    def key(self) -> str:
        return " ".join(self.names) + (f" {self.unit.key}" if self.unit else "")


@dataclass(frozen=True)
class Ordered:
    """Ordered items between brackets: a point, a pair, an interval. `brackets` are two characters."""

    items: tuple["Form", ...]
    brackets: str

    @cached_property
    def key(self) -> str:
        # From three items on, nobody means an interval, and the kinds of brackets mean nothing.
        brackets = "()" if len(self.items) > 2 or self.brackets == "<>" else self.brackets
        return f"{brackets[0]}{'; '.join(item.key for item in self.items)}{brackets[1]}"


@dataclass(frozen=True)
class Bag:
    """A set, or a list that says no order; `braces` tells which. `items` are as written."""

    items: tuple["Form", ...]
    braces: bool

    @cached_property
    def key(self) -> str:
        return f"{{{'; '.join(sorted({item.key for item in self.items}))}}}"


@dataclass(frozen=True)
class Equation:
    """`name = value` when a side is a mere name (x, f(x), a_3); `difference` of the sides where they are scalars."""

    difference: Node | None
    name: Node | None
    value: "Form | None"
    sides: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        if self.difference is not None:
            return "=0: " + proportions(self.difference, signed=False)
        return " = ".join(self.sides)


@dataclass(frozen=True)
class Inequality:
    """`difference` < 0 or <= 0, in several symbols or not linear in one."""

    difference: Node
    relation: str

    @cached_property
    def key(self) -> str:
        return f"{self.relation} 0: {proportions(self.difference, signed=True)}"


@dataclass(frozen=True)
class Solutions:
    """A set of real numbers, as an inequality, a union or a membership tells it; `name` is of what, None if untold."""

    reals: RealSet
    name: str | None

    @cached_property
    def key(self) -> str:
        return f"{self.name or ''} in {self.reals.key}"


@dataclass(frozen=True)
class Ratio:
    """a : b : c. What may be a time of day is not reduced: 12:30 is not 6:15."""

    parts: tuple[Scalar, ...]

    @property
    def clocklike(self) -> bool:
        numbers = [numeric.as_integer(part.value()) for part in self.parts]
        hours, *rest = [n if n is not None else -1 for n in numbers]
        return 0 <= hours <= 24 and all(n == 0 or 10 <= n < 60 for n in rest)

    @cached_property
    def key(self) -> str:
        return ":".join(part.key for part in self.parts) if self.clocklike else self.proportion

    @cached_property
    def proportion(self) -> str:
        first = self.parts[0].value()
        shares = (numeric.divide(part.value(), first) for part in self.parts[1:])
        return "1:" + ":".join(numeric.name_of(share) for share in shares)


@dataclass(frozen=True)
class Words:
    """Plain words, in their normal spelling."""

    words: str

    @property
    def key(self) -> str:
        return f"'{self.words}'"


@dataclass(frozen=True)
class Numeral:
    """A numeral with its base, which is a spelling and not a number: 52_8 is neither 52_9 nor 42."""

    digits: str
    base: str

    @property
    def key(self) -> str:
        return f"{self.digits} base {self.base}"


@dataclass(frozen=True)
class Residue:
    """r mod m."""

    key: str


Form: TypeAlias = Scalar | Ordered | Bag | Equation | Inequality | Solutions | Ratio | Words | Numeral | Residue


def proportions(node: Node, *, signed: bool) -> str:
    """The name of `node` up to a constant factor (a positive one when `signed`): its values at three points, divided
    by the first. Raises `Unreadable` when it says nothing about a symbol."""
    if not symbols_in(node):
        raise Unreadable
    values = [evaluate(node, Point(which)) for which in range(3)]
    if any(isinstance(value, Matrix) for value in values):
        raise Unreadable
    first: Value = next((value for value in values if value != 0), None)
    if first is None:
        return "identity"
    if signed:
        if not all(numeric.is_real(value) for value in values):
            raise Unreadable
        first = abs(first)
    return " ".join(numeric.name_of(numeric.divide(value, first)) for value in values)


def keys(forms: Sequence[Form]) -> list[str]:
    return [form.key for form in forms]

"""The parser of what begins with a backslash or is a function: fractions, roots, sets, sums. Pure; total."""

from collections.abc import Callable
from typing import Protocol

from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.lexicon import (
    ACCENTS,
    ALIASES,
    BIG_OPERATORS,
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    GREEK_ALIASES,
    INVERSES,
    LISTED,
    PREFIXED,
)
from services.core.equivalence.stream import Stream
from services.core.equivalence.tree import Node, number, symbol

_NUMBER_SETS = {"R": "ℝ", "Z": "ℤ", "N": "ℕ", "Q": "ℚ", "C": "ℂ"}
_DOTS = frozenset(("ldots", "dots", "cdots", "dotsc", "vdots"))
_STRUCTURES = frozenset(
    ("frac", "begin", "lvert", "vert", "lVert", "|", "{", "lbrace", "langle", "mathbb", "Bbb", "emptyset", "varnothing")
)
_CLOSING_BARS = frozenset(("|", "rvert", "vert", "rVert", "Vert"))
# What a factor may begin with.
BEGINNERS = (
    _STRUCTURES
    | _DOTS
    | LISTED
    | FUNCTIONS
    | GREEK
    | BIG_OPERATORS
    | PREFIXED
    | ACCENTS
    | frozenset(CONSTANTS)
    | frozenset(_NUMBER_SETS)
    | {"dbinom", "lfloor", "lceil"}
) - {"mod"}


class ExpressionParser(Protocol):
    """What commands need of the parser around them."""

    def sum(self) -> Node: ...
    def product(self) -> Node: ...
    def factor(self) -> Node: ...
    def primary(self) -> Node: ...
    def exponent(self) -> Node: ...
    def argument(self) -> Node: ...
    def bracketed(self, opening: str) -> Node: ...
    def braced(self) -> Node: ...
    def marks(self) -> str: ...
    def begins_factor(self) -> bool: ...


class Commands:
    """Reads one command with what belongs to it. `statements` reads a list, `matrix` an environment."""

    def __init__(
        self, stream: Stream, parser: ExpressionParser, statements: Callable[[], Node], matrix: Callable[[], Node]
    ) -> None:
        self._in = stream
        self._parser = parser
        self._statements = statements
        self._matrix = matrix

    def command(self, name: str) -> Node:
        """The node of `\\name`, which has just been taken."""
        if name in CONSTANTS:
            return Node("constant", name=CONSTANTS[name])
        if name in GREEK:
            return symbol(GREEK_ALIASES.get(name, name) + self._parser.marks())
        if name in FUNCTIONS:
            return self._function(name)
        if name in LISTED or name in ("dbinom", "lfloor", "lceil"):
            return self._listed(name)
        if name in BIG_OPERATORS:
            return self._big(name)
        if name in PREFIXED or name in ACCENTS:
            return self._accented(name)
        if name in _DOTS or name in _NUMBER_SETS:
            return symbol("…" if name in _DOTS else _NUMBER_SETS[name])
        return self._structure(name)

    def absolute(self, bar: str) -> Node:
        """`|x|`, after its first bar."""
        self._in.deeper()
        self._in.bars += 1
        content = self._parser.sum()
        if self._in.next().text not in _CLOSING_BARS:
            raise Unreadable
        self._in.bars -= 1
        self._in.depth -= 1
        return Node("call", (content,), "norm" if bar == "||" else "abs")

    def arguments(self) -> tuple[Node, ...]:
        """The arguments of a function in their brackets."""
        token = self._in.next()
        if token.text not in ("(", "[", "{"):
            raise Unreadable
        content = self._parser.braced() if token.text == "{" else self._parser.bracketed(token.text)
        return content.kids if content.op in ("group", "set") else (content,)

    def _accented(self, name: str) -> Node:
        named = self._named()
        if name in ("vec", "hat") and len(named) == 1:
            return symbol(named + self._parser.marks())
        return symbol(f"{name}({named}){self._parser.marks()}")

    def _named(self) -> str:
        """What an accent or \\angle stands over: a group, or the letters that follow."""
        if self._in.at("sign", "{"):
            return self._in.raw_group()
        name = ""
        while self._in.at("letter"):
            name += self._in.next().text
        if not name:
            raise Unreadable
        return name

    def _structure(self, name: str) -> Node:
        match name:
            case "frac":
                return self._fraction()
            case "begin":
                return self._matrix()
            case "lvert" | "vert" | "|" | "lVert":
                return self.absolute("||" if name == "lVert" else "|")
            case "{" | "lbrace":
                return self._set()
            case "langle":
                return self._angled()
            case "emptyset" | "varnothing":
                return Node("set")
            case "mathbb" | "Bbb":
                letter = self._in.raw_group()
                return symbol(_NUMBER_SETS.get(letter, letter))
        raise Unreadable

    def _fraction(self) -> Node:
        above, below = self._parser.argument(), self._parser.argument()
        first = below.kids[0] if below.op == "multiply" else below
        if above == first == symbol("d"):
            # d/dx is an operator, not the quotient of d and dx.
            raise Unreadable
        return Node("divide", (above, below))

    def _angled(self) -> Node:
        self._in.deeper()
        content = self._statements()
        self._in.require("command", "rangle")
        self._in.depth -= 1
        return Node("group", content.kids if content.op == "list" else (content,), "<>")

    def _set(self) -> Node:
        """`\\{1, 2\\}`, or `\\{x | x > 2\\}` with one of the usual signs between."""
        self._in.deeper()
        bars, self._in.bars = self._in.bars, 1
        if self._in.take("command", "}", "rbrace"):
            content = Node("set")
        else:
            content = self._statements()
            if self._in.take("sign", "|", ":") or self._in.take("relation", "|", ":"):
                content = Node("builder", (content, self._statements()))
            else:
                content = Node("set", content.kids if content.op == "list" else (content,))
            self._in.require("command", "}", "rbrace")
        self._in.bars = bars
        self._in.depth -= 1
        return content

    def _function(self, name: str) -> Node:
        """`\\sin^2 x`, `\\log_2 (x+1)`; the exponent -1 inverts."""
        name = ALIASES.get(name, name)
        base = self._argument_or_digits() if self._in.take("sign", "_") else None
        exponent = self._parser.exponent() if self._in.take("sign", "^") else None
        if exponent == Node("negate", (number(1),)) and name in INVERSES:
            name, exponent = INVERSES[name], None
        argument = self._function_argument()
        call = Node("call", (argument,) if base is None else (argument, base), name)
        return call if exponent is None else Node("power", (call, exponent))

    def _function_argument(self) -> Node:
        """A bracket, or the factors that follow up to the next function or sign."""
        if self._in.at("sign", "(", "[", "{"):
            opening = self._in.next().text
            return self._parser.braced() if opening == "{" else self._parser.bracketed(opening)
        self._in.deeper()
        negative = self._in.take("sign", "-")
        factors = [self._parser.factor()]
        while self._parser.begins_factor() and not self._in.at("sign", "(", "[") and not self._at_function():
            factors.append(self._parser.factor())
        self._in.depth -= 1
        argument = factors[0] if len(factors) == 1 else Node("multiply", tuple(factors))
        return Node("negate", (argument,)) if negative else argument

    def _at_function(self) -> bool:
        return self._in.at("command") and self._in.peek().text in FUNCTIONS | LISTED

    def _listed(self, name: str) -> Node:
        match name:
            case "sqrt":
                degree = number(2)
                if self._in.take("sign", "["):
                    degree = self._parser.sum()
                    self._in.require("sign", "]")
                return Node("call", (self._argument_or_digits(), degree), "root")
            case "cbrt":
                return Node("call", (self._argument_or_digits(), number(3)), "root")
            case "binom" | "dbinom" if not self._in.at("sign", "("):
                return Node("call", (self._parser.argument(), self._parser.argument()), "binom")
            case "lfloor" | "lceil":
                content = self._parser.sum()
                self._in.require("command", name.replace("l", "r", 1))
                return Node("call", (content,), name[1:])
        return Node("call", self.arguments(), name)

    def _argument_or_digits(self) -> Node:
        # \sqrt12: TeX would take the 1 alone, which nobody means.
        if self._in.at("number"):
            return number(self._in.next().value or 0)
        return self._parser.primary()

    def _big(self, name: str) -> Node:
        """`\\sum_{k=1}^{n} body`: (body, lower bound, upper bound), named after the operator and its variable."""
        lower = upper = number(0)
        variable = ""
        for _ in range(2):
            if self._in.take("sign", "_"):
                lower = self._bound()
                if lower.op == "relation" and lower.name in ("=", "to") and lower.kids[0].op in ("symbol", "constant"):
                    variable, lower = lower.kids[0].name, lower.kids[1]
            elif self._in.take("sign", "^"):
                upper = self._parser.exponent()
        self._in.deeper()
        body = self._parser.product()
        self._in.depth -= 1
        return Node("big", (body, lower, upper), f"{name} {variable}")

    def _bound(self) -> Node:
        if not self._in.take("sign", "{"):
            return self._parser.primary()
        content = self._statements()
        self._in.require("sign", "}")
        return content

"""The parser of names: letters with subscripts and primes, constants, functions of a letter. Pure; total."""

from collections.abc import Callable

from services.core.equivalence.lexer import Token
from services.core.equivalence.stream import Stream
from services.core.equivalence.tree import Node, symbol

# Letters that are functions when a bracket follows at once; others multiply it.
_FUNCTION_LETTERS = frozenset("fghFGH")
_CONSTANT_LETTERS = frozenset("ei")


class Names:
    """Reads names from a stream; `arguments` reads the arguments of a function in their brackets."""

    def __init__(self, stream: Stream, arguments: Callable[[], tuple[Node, ...]]) -> None:
        self._in = stream
        self._arguments = arguments

    def letter(self, token: Token) -> Node:
        """What a letter that was just taken names: a constant, a symbol, a function with its arguments."""
        name = token.text + self.marks()
        if token.text in _FUNCTION_LETTERS and self._takes_inverse():
            name += "^-1"
        if token.text in _FUNCTION_LETTERS and self._in.at("sign", "(") and not self._in.peek().spaced:
            return Node("call", self._arguments(), f"{name}()")
        if name in _CONSTANT_LETTERS and len(name) == 1:
            return Node("constant", name=name)
        return symbol(name)

    def _takes_inverse(self) -> bool:
        """Whether ^{-1} and a bracket follow; takes the exponent."""
        here = "".join(self._in.peek(i).text for i in range(6))
        found = here.startswith("^{-1}(")
        self._in.place += 5 * found
        return found

    def marks(self) -> str:
        """Subscript and primes, which belong to the name."""
        marks = ""
        if self._in.take("sign", "_"):
            marks = f"_{self._in.raw_group()}"
        while self._in.take("sign", "'"):
            marks += "'"
        if self._in.at("sign", "^") and self._in.at("command", "prime", ahead=1):
            self._in.place += 2
            marks += "'"
        return marks

"""The parser of expressions: sums, products, powers, brackets, names. Recursive descent of bounded depth; total: any
tokens give a tree or `Unreadable`."""

from collections.abc import Callable
from fractions import Fraction

from services.core.equivalence.commands import BEGINNERS, Commands
from services.core.equivalence.lexer import Token, Unreadable
from services.core.equivalence.names import Names
from services.core.equivalence.stream import Stream
from services.core.equivalence.tree import Node, number, transposed

_CLOSERS = {"(": (")", "]"), "[": (")", "]")}


class Expressions:
    """Reads expressions from a stream. `statements` reads what may stand between brackets, `matrix` an environment."""

    def __init__(self, stream: Stream, statements: Callable[[], Node], matrix: Callable[[], Node]) -> None:
        self._in = stream
        self._statements = statements
        self._commands = Commands(stream, self, statements, matrix)
        self._names = Names(stream, self._commands.arguments)

    def sum(self) -> Node:
        """term (+ term | - term | \\pm term)*"""
        self._in.deeper()
        terms = [self._signed_term()]
        while (sign := self._sign()) is not None:
            term = self._signed_term()
            terms.append(_with_sign(sign, term))
        self._in.depth -= 1
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def _signed_term(self) -> Node:
        sign = self._sign()
        if sign is None:
            return self.product()
        self._in.deeper()
        term = _with_sign(sign, self._signed_term())
        self._in.depth -= 1
        return term

    def _sign(self) -> str | None:
        if self._in.at("sign", "+", "-") or self._in.at("command", "pm", "mp"):
            return self._in.next().text
        return None

    def product(self) -> Node:
        """Factors joined by signs of multiplication, of division, or by nothing; from left to right."""
        product = self.factor()
        joined = [product]
        while True:
            if self._in.take("sign", "*") or self._in.take("command", "times", "cdot", "ast", "star", "bullet"):
                joined.append(self._signed_factor())
            elif self._in.at("sign", "/") and self._in.at("word", ahead=1):
                break  # of a unit: 2.50 / lb
            elif self._in.take("sign", "/") or self._in.take("command", "div"):
                left = joined[0] if len(joined) == 1 else Node("multiply", tuple(joined))
                joined = [Node("divide", (left, self._signed_factor()))]
            elif self._in.take("command", "bmod", "mod"):
                left = joined[0] if len(joined) == 1 else Node("multiply", tuple(joined))
                joined = [Node("call", (left, self._signed_factor()), "mod")]
            elif self.begins_factor():
                self._refuse_two_numbers(joined[-1])
                joined.append(self.factor())
            else:
                break
        return joined[0] if len(joined) == 1 else Node("multiply", tuple(joined))

    def _refuse_two_numbers(self, before: Node) -> None:
        # 2 3 is no product that anyone writes; a power before or after makes it one.
        if before.op == "number" and self._in.at("number") and not self._in.at("sign", "^", ahead=1):
            raise Unreadable

    def _signed_factor(self) -> Node:
        if self._in.take("sign", "-"):
            self._in.deeper()
            factor = Node("negate", (self._signed_factor(),))
            self._in.depth -= 1
            return factor
        self._in.take("sign", "+")
        return self.factor()

    def begins_factor(self) -> bool:
        token = self._in.peek()
        if token.kind in ("number", "letter"):
            return True
        if token.kind == "command":
            return token.text in BEGINNERS and not self._in.at_minutes()
        if token.text == "|":
            return token.kind == "sign" and self._in.bars == 0
        if token.upright and self._in.at("word", ahead=1):
            return False  # 5 \text{ (exactly)}
        return token.kind == "sign" and token.text in ("(", "[", "{")

    def factor(self) -> Node:
        """primary with its exponents, factorials, degree and percent signs; mixed numbers."""
        token = self._in.peek()
        base = self.primary()
        if token.kind == "number":
            mixed = self._mixed(base)
            if mixed is not None:
                return self._postfixed(mixed)
        return self._postfixed(base)

    def _postfixed(self, base: Node) -> Node:
        while True:
            if self._in.take("sign", "^"):
                base = self._raised(base)
            elif self._in.take("sign", "!"):
                base = Node("factorial", (base,))
            elif self._in.take("sign", "%") or self._in.take("command", "%"):
                base = Node("percent", (base,))
            elif self._in.take("command", "circ", "degree"):
                base = Node("degrees", (base,))
            elif self._in.at("sign", "'") and base.op in ("symbol", "number"):
                raise Unreadable
            else:
                return base

    def _raised(self, base: Node) -> Node:
        if self._in.take("command", "circ", "degree"):
            return Node("degrees", (base,))
        if self._in.at("sign", "{") and self._in.at("command", "circ", ahead=1) and self._in.at("sign", "}", ahead=2):
            self._in.place += 3
            return Node("degrees", (base,))
        if base.op == "matrix" and (self._in.take("letter", "T") or self._in.take("command", "top", "intercal")):
            return transposed(base)
        if self._in.take("command", "top") or self._in.take("sign", "*"):
            return Node("call", (base,), "top()")
        return Node("power", (base, self.exponent()))

    def exponent(self) -> Node:
        self._in.deeper()
        if self._in.take("sign", "-"):
            found = Node("negate", (self.exponent(),))
        elif self._in.take("sign", "+"):
            found = self.exponent()
        else:
            found = self.primary()
            if self._in.take("sign", "^"):
                found = Node("power", (found, self.exponent()))
        self._in.depth -= 1
        return found

    def _mixed(self, whole: Node) -> Node | None:
        """`1\\frac{1}{2}`, `1 1/2`: a proper fraction right after an integer is added to it."""
        if whole.value is None or whole.value.denominator != 1:
            return None
        start = self._in.place
        part: Node | None = None
        if self._in.take("command", "frac"):
            part = Node("divide", (self.argument(), self.argument()))
        elif self._plain_fraction_follows():
            above, _, below = self._in.next(), self._in.next(), self._in.next()
            part = Node("divide", (number(above.value or 0), number(below.value or 0)))
        if part is not None and _is_proper(part) and not self._in.at("sign", "^"):
            return Node("add", (whole, part))
        self._in.place = start
        return None

    def _plain_fraction_follows(self) -> bool:
        spaced = self._in.at("number") and self._in.peek().spaced
        return spaced and self._in.at("sign", "/", ahead=1) and self._in.at("number", ahead=2)

    def primary(self) -> Node:
        token = self._in.next()
        match token.kind:
            case "number":
                return self._numeral(token)
            case "letter":
                return self._names.letter(token)
            case "command":
                return self._commands.command(token.text)
            case "word" if len(token.text) == 1:
                return self._names.letter(token)
            case "sign" if token.text in ("(", "["):
                return self.bracketed(token.text)
            case "sign" if token.text == "{":
                return self.braced()
            case "sign" if token.text == "|":
                return self._commands.absolute("|")
        raise Unreadable

    def _numeral(self, token: Token) -> Node:
        if token.value is None:
            raise Unreadable
        if self._in.take("sign", "_"):
            return Node("based", name=f"{token.text}_{self._in.raw_group()}", value=token.value)
        return number(token.value)

    def marks(self) -> str:
        """Subscript and primes of a name."""
        return self._names.marks()

    def bracketed(self, opening: str) -> Node:
        self._in.deeper()
        bars, self._in.bars = self._in.bars, 0
        content = self._statements()
        closing = self._in.next()
        if closing.text not in _CLOSERS[opening]:
            raise Unreadable
        self._in.bars = bars
        self._in.depth -= 1
        if content.op == "list":
            return Node("group", content.kids, opening + closing.text)
        if content.op not in ("relation", "words", "set", "union") and opening + closing.text in ("()", "[]"):
            return content
        raise Unreadable

    def braced(self) -> Node:
        """A TeX group is transparent; around a list it is a set that somebody forgot to escape."""
        self._in.deeper()
        bars, self._in.bars = self._in.bars, 0
        content = self._statements()
        if self._in.take("command", "choose"):
            content = Node("call", (content, self._statements()), "binom")
        elif self._in.take("command", "over"):
            content = Node("divide", (content, self._statements()))
        self._in.require("sign", "}")
        self._in.bars = bars
        self._in.depth -= 1
        if content.op == "list":
            return Node("set", content.kids)
        return content

    def argument(self) -> Node:
        """What a command takes: a braced group, or one digit, letter or command."""
        token = self._in.peek()
        if token.kind == "number" and token.text.isdecimal() and len(token.text) > 1:
            self._in.next()
            rest = token.text[1:]
            self._in.put_back(Token("number", rest, Fraction(int(rest))))
            return number(int(token.text[0]))
        if token.kind == "sign" and token.text == "-":
            raise Unreadable
        return self.primary()


def _with_sign(sign: str, term: Node) -> Node:
    match sign:
        case "-":
            return Node("negate", (term,))
        case "pm":
            return Node("plusminus", (term,), "+")
        case "mp":
            return Node("plusminus", (term,), "-")
    return term


def _is_proper(fraction: Node) -> bool:
    above, below = (kid.value for kid in fraction.kids)
    if above is None or below is None:
        return False
    return above.denominator == below.denominator == 1 and 0 < above < below

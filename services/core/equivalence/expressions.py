"""The parser of expressions: sums, products, powers, functions, brackets. Recursive descent of bounded depth; total:
any tokens give a tree or `Unreadable`."""

from collections.abc import Callable
from fractions import Fraction

from services.core.equivalence.lexer import Token, Unreadable
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

# Letters that are functions when a bracket follows at once; others multiply it.
_FUNCTION_LETTERS = frozenset("fghFGH")
_CLOSERS = {"(": (")", "]"), "[": (")", "]"), "\\{": ("\\}",), "langle": ("rangle",), "{": ("}",)}
_DIFFERENT_SETS = {"R": "ℝ", "Z": "ℤ", "N": "ℕ", "Q": "ℚ", "C": "ℂ"}
_CONSTANT_LETTERS = {"e": "e", "i": "i"}


class Expressions:
    """Reads expressions from a stream. `statements` reads what may stand between brackets, `matrix` an environment."""

    def __init__(self, stream: Stream, statements: Callable[[], Node], matrix: Callable[[], Node]) -> None:
        self._in = stream
        self._statements = statements
        self._matrix = matrix

    def sum(self) -> Node:
        """term (+ term | - term | \\pm term)*"""
        self._in.deeper()
        terms = [self._signed_term()]
        while (sign := self._sign()) is not None:
            term = self._product()
            terms.append(_with_sign(sign, term))
        self._in.depth -= 1
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def _signed_term(self) -> Node:
        sign = self._sign()
        if sign is None:
            return self._product()
        self._in.deeper()
        term = _with_sign(sign, self._signed_term())
        self._in.depth -= 1
        return term

    def _sign(self) -> str | None:
        if self._in.at("sign", "+", "-") or self._in.at("command", "pm", "mp"):
            return self._in.next().text
        return None

    def _product(self) -> Node:
        """Factors joined by signs of multiplication, of division, or by nothing; from left to right."""
        product = self._factor()
        joined = [product]
        while True:
            if self._in.take("sign", "*") or self._in.take("command", "times", "cdot", "ast", "star", "bullet"):
                joined.append(self._signed_factor())
            elif self._in.take("sign", "/") or self._in.take("command", "div"):
                left = joined[0] if len(joined) == 1 else Node("multiply", tuple(joined))
                joined = [Node("divide", (left, self._signed_factor()))]
            elif self._in.take("command", "bmod", "mod"):
                left = joined[0] if len(joined) == 1 else Node("multiply", tuple(joined))
                joined = [Node("call", (left, self._signed_factor()), "mod")]
            elif self._begins_factor():
                self._refuse_two_numbers(joined[-1])
                joined.append(self._factor())
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
        return self._factor()

    def _begins_factor(self) -> bool:
        token = self._in.peek()
        if token.kind in ("number", "letter"):
            return True
        if token.kind == "command":
            return token.text in _BEGINNERS or token.text in GREEK or token.text in FUNCTIONS
        if token.text == "|":
            return token.kind == "sign" and self._in.bars == 0
        return token.kind == "sign" and token.text in ("(", "[", "{")

    def _factor(self) -> Node:
        """primary with its exponents, factorials, degree and percent signs; mixed numbers."""
        token = self._in.peek()
        base = self._primary()
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
        if self._in.take("command", "top") or self._in.take("sign", "*"):
            return Node("call", (base,), "top()")
        return Node("power", (base, self._exponent()))

    def _exponent(self) -> Node:
        self._in.deeper()
        if self._in.take("sign", "-"):
            found = Node("negate", (self._exponent(),))
        elif self._in.take("sign", "+"):
            found = self._exponent()
        else:
            found = self._primary()
            if self._in.take("sign", "^"):
                found = Node("power", (found, self._exponent()))
        self._in.depth -= 1
        return found

    def _mixed(self, whole: Node) -> Node | None:
        """`1\\frac{1}{2}`, `1 1/2`: a proper fraction right after an integer is added to it."""
        if whole.value is None or whole.value.denominator != 1:
            return None
        start = self._in.place
        part: Node | None = None
        if self._in.take("command", "frac"):
            part = Node("divide", (self._argument(), self._argument()))
        elif self._in.at("number") and self._in.at("sign", "/", ahead=1) and self._in.at("number", ahead=2):
            if self._in.peek().spaced:
                above, _, below = self._in.next(), self._in.next(), self._in.next()
                part = Node("divide", (number(above.value or 0), number(below.value or 0)))
        if part is not None and _is_proper(part) and not self._in.at("sign", "^"):
            return Node("add", (whole, part))
        self._in.place = start
        return None

    def _primary(self) -> Node:
        token = self._in.next()
        match token.kind:
            case "number":
                return self._numeral(token)
            case "letter":
                return self._letter(token)
            case "command":
                return self._command(token.text)
            case "word" if len(token.text) == 1:
                return self._letter(token)
            case "sign" if token.text in ("(", "["):
                return self._bracketed(token.text)
            case "sign" if token.text == "{":
                return self._braced()
            case "sign" if token.text == "|":
                return self._absolute("|")
        raise Unreadable

    def _numeral(self, token: Token) -> Node:
        if token.value is None:
            raise Unreadable
        if self._in.take("sign", "_"):
            return Node("based", name=f"{token.text}_{self._in.raw_group()}", value=token.value)
        return number(token.value)

    def _letter(self, token: Token) -> Node:
        name = token.text + self._marks()
        if token.text in _FUNCTION_LETTERS and self._in.at("sign", "(") and not self._in.peek().spaced:
            return Node("call", self._arguments(), f"{name}()")
        if name in _CONSTANT_LETTERS:
            return Node("constant", name=_CONSTANT_LETTERS[name])
        return symbol(name)

    def _marks(self) -> str:
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

    def _bracketed(self, opening: str) -> Node:
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

    def _braced(self) -> Node:
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

    def _absolute(self, bar: str) -> Node:
        self._in.deeper()
        self._in.bars += 1
        content = self.sum()
        closing = self._in.next()
        if closing.text not in (bar, "rvert", "vert", "rVert", "Vert"):
            raise Unreadable
        self._in.bars -= 1
        self._in.depth -= 1
        return Node("call", (content,), "abs" if bar == "|" else "norm")

    def _command(self, name: str) -> Node:
        if name in CONSTANTS:
            return Node("constant", name=CONSTANTS[name])
        if name in GREEK:
            return symbol(GREEK_ALIASES.get(name, name) + self._marks())
        if name in FUNCTIONS or name == "operatorname":
            return self._function(name)
        if name in LISTED or name in ("dbinom", "lfloor", "lceil"):
            return self._listed(name)
        if name in BIG_OPERATORS:
            return self._big(name)
        if name in PREFIXED or name in ACCENTS:
            named = self._named()
            if name in ("vec", "hat") and len(named) == 1:
                return symbol(named + self._marks())
            return symbol(f"{name}({named}){self._marks()}")
        return self._structure(name)

    def _structure(self, name: str) -> Node:
        match name:
            case "frac":
                return Node("divide", (self._argument(), self._argument()))
            case "begin":
                return self._matrix()
            case "lvert" | "vert":
                return self._absolute("|")
            case "|" | "lVert" | "Vert":
                return self._absolute("|" if name == "|" else "||")
            case "{" | "lbrace":
                return self._set()
            case "langle":
                content = self._list_until("rangle")
                return Node("group", content.kids if content.op == "list" else (content,), "<>")
            case "emptyset" | "varnothing":
                return Node("set")
            case "mathbb" | "Bbb":
                letter = self._in.raw_group()
                return symbol(_DIFFERENT_SETS.get(letter, letter))
            case "R" | "Z" | "N" | "Q" | "C":
                return symbol(_DIFFERENT_SETS[name])
            case "ldots" | "dots" | "cdots" | "dotsc" | "vdots":
                return symbol("…")
            case "prime":
                return symbol("'")
        raise Unreadable

    def _list_until(self, closing: str) -> Node:
        self._in.deeper()
        content = self._statements()
        self._in.require("command", closing)
        self._in.depth -= 1
        return content

    def _set(self) -> Node:
        self._in.deeper()
        bars, self._in.bars = self._in.bars, 1
        if self._in.take("command", "}", "rbrace"):
            content = Node("set")
        else:
            content = self._statements()
            if self._in.take("sign", "|", ":") or self._in.take("relation", "|", ":"):
                content = Node("builder", (content, self._statements()))
            elif content.op == "ratio" and len(content.kids) == 2:
                content = Node("builder", content.kids)
            else:
                content = Node("set", content.kids if content.op == "list" else (content,))
            self._in.require("command", "}", "rbrace")
        self._in.bars = bars
        self._in.depth -= 1
        return content

    def _argument(self) -> Node:
        """What a command takes: a braced group, or one digit, letter or command."""
        token = self._in.peek()
        if token.kind == "number" and token.text.isdecimal() and len(token.text) > 1:
            self._in.next()
            rest = token.text[1:]
            self._in.put_back(Token("number", rest, Fraction(int(rest))))
            return number(int(token.text[0]))
        if token.kind == "sign" and token.text == "-":
            raise Unreadable
        return self._primary()

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

    def _function(self, name: str) -> Node:
        name = ALIASES.get(name, name)
        base: Node | None = None
        if self._in.take("sign", "_"):
            base = self._argument_or_digits()
        exponent: Node | None = None
        if self._in.take("sign", "^"):
            exponent = self._exponent()
            if exponent == Node("negate", (number(1),)) and name in INVERSES:
                name, exponent = INVERSES[name], None
        argument = self._function_argument()
        call = Node("call", (argument,) if base is None else (argument, base), name)
        return call if exponent is None else Node("power", (call, exponent))

    def _function_argument(self) -> Node:
        """A bracket, or the factors that follow up to the next function or sign."""
        if self._in.at("sign", "(", "[", "{"):
            opening = self._in.next().text
            return self._braced() if opening == "{" else self._bracketed(opening)
        self._in.deeper()
        sign = self._in.take("sign", "-")
        factors = [self._factor()]
        while self._begins_factor() and not self._in.at("sign", "(", "[") and not self._at_function():
            factors.append(self._factor())
        self._in.depth -= 1
        argument = factors[0] if len(factors) == 1 else Node("multiply", tuple(factors))
        return Node("negate", (argument,)) if sign else argument

    def _at_function(self) -> bool:
        return self._in.at("command") and (self._in.peek().text in FUNCTIONS or self._in.peek().text in LISTED)

    def _listed(self, name: str) -> Node:
        match name:
            case "sqrt":
                degree = number(2)
                if self._in.take("sign", "["):
                    degree = self.sum()
                    self._in.require("sign", "]")
                return Node("call", (self._argument_or_digits(), degree), "root")
            case "cbrt":
                return Node("call", (self._argument_or_digits(), number(3)), "root")
            case "binom":
                if self._in.at("sign", "("):
                    return Node("call", self._arguments(), "binom")
                return Node("call", (self._argument(), self._argument()), "binom")
            case "lfloor" | "lceil":
                content = self.sum()
                self._in.require("command", name.replace("l", "r", 1))
                return Node("call", (content,), name[1:])
        return Node("call", self._arguments(), name)

    def _argument_or_digits(self) -> Node:
        # \sqrt12: TeX would take the 1 alone, which nobody means.
        if self._in.at("number"):
            return number(self._in.next().value or 0)
        return self._primary()

    def _arguments(self) -> tuple[Node, ...]:
        token = self._in.next()
        if token.text not in ("(", "[", "{"):
            raise Unreadable
        content = self._braced() if token.text == "{" else self._bracketed(token.text)
        return content.kids if content.op in ("group", "set") else (content,)

    def _big(self, name: str) -> Node:
        """`\\sum_{k=1}^{n} body`: (body, lower bound, upper bound), named after the operator and its variable."""
        lower = upper = number(0)
        variable = ""
        for _ in range(2):
            if self._in.take("sign", "_"):
                bound = self._statements_in_braces()
                if bound.op == "relation" and bound.name in ("=", "to") and bound.kids[0].op in ("symbol", "constant"):
                    variable, bound = bound.kids[0].name, bound.kids[1]
                lower = bound
            elif self._in.take("sign", "^"):
                upper = self._exponent()
        self._in.deeper()
        body = self._product()
        self._in.depth -= 1
        return Node("big", (body, lower, upper), f"{name} {variable}")

    def _statements_in_braces(self) -> Node:
        if not self._in.take("sign", "{"):
            return self._primary()
        content = self._statements()
        self._in.require("sign", "}")
        return content


_BEGINNERS = (
    frozenset(
        ["frac", "begin", "lvert", "vert", "lVert", "|", "{", "lbrace", "langle", "mathbb", "emptyset", "varnothing", "ldots", "dots", "cdots", "dbinom", "lfloor", "lceil", "operatorname", "R", "Z", "N", "Q", "C"]
    )
    | LISTED
    | BIG_OPERATORS
    | PREFIXED
    | ACCENTS
    | frozenset(CONSTANTS)
) - {"mod"}


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

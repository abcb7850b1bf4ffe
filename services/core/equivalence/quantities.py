"""The parser of quantities: a number with its currency before or its unit after, several that make up one, words
alone. Pure; total."""

from services.core.equivalence.expressions import Expressions
from services.core.equivalence.lexer import Unreadable
from services.core.equivalence.lexicon import FILLERS
from services.core.equivalence.stream import Stream
from services.core.equivalence.tree import Node, number, symbol
from services.core.equivalence.units import parts_of, scaled_words

_IN_UNITS = frozenset(("^", "{", "}", "/", ".", "-", "'", "(", ")", '"'))
_CURRENCIES = ("$", "€", "£", "¥", "₹")
_WORD_POWERS = {"squared": 2, "cubed": 3}


class Quantities:
    """Reads quantities from a stream."""

    def __init__(self, stream: Stream, expressions: Expressions) -> None:
        self._in = stream
        self._expressions = expressions

    def quantity(self) -> Node:
        """An expression with its unit before (money) or after; or words alone."""
        self._skip_fillers()
        if self._in.at("word") and len(self._in.peek().text) > 1:
            return self._words()
        node = self._measure()
        while node.op == "quantity" and (rest := self._smaller_part(node.name)) is not None:
            (whole, part), unit = (node.kids[0], rest.kids[0]), rest.name
            times = number(parts_of(node.name, unit) or 1)
            node = Node("quantity", (Node("add", (Node("multiply", (whole, times)), part)),), unit)
        return node

    def _words(self) -> Node:
        words = unit_words(self._in)
        if self._in.at("relation", "="):
            return symbol(f"'{words.lower()}'")
        if not words or not self._at_item_end():
            raise Unreadable
        return Node("words", name=words)

    def _measure(self) -> Node:
        """One number with its unit."""
        sign = self._in.take("sign", "-") if self._in.at("command", "$", ahead=1) else False
        currency = self._currency()
        node = self._expressions.sum()
        if sign:
            node = Node("negate", (node,))
        if self._in.take("command", "pmod"):
            return Node("residue", (node, self._expressions.argument()))
        if _is_named_point(node):
            # P(2, 3) is the point (2, 3), named.
            return Node("relation", node.kids, "=")
        currency = currency or self._currency()
        words = unit_words(self._in)
        if words.lower() in _WORD_POWERS:
            return Node("power", (node, number(_WORD_POWERS[words.lower()])))
        unit = _with_currency(currency, words)
        return Node("quantity", (node,), unit) if unit else node

    def _smaller_part(self, unit: str) -> Node | None:
        """The `30 minutes` of `1 hour 30 minutes`; None when what follows is a quantity of its own, or none."""
        start = self._in.place
        while self._in.take("separator", "and") or self._in.take("sign", ","):
            pass
        value = self._in.next().value
        # Plain numbers alone: to read ahead what nests would be to read it twice at each depth.
        if value is not None and (self._in.at("word") or self._in.at_minutes()):
            words = unit_words(self._in)
            times = parts_of(unit, words)
            if times is not None and value < times:
                return Node("quantity", (number(value),), words)
        self._in.place = start
        return None

    def _skip_fillers(self) -> None:
        while self._in.at("word") and self._in.peek().text.lower() in FILLERS and not self._in.at("relation", ahead=1):
            self._in.next()

    def _currency(self) -> str:
        if self._in.take("command", "$"):
            return "$"
        if self._in.at("sign", *_CURRENCIES):
            return self._in.next().text
        if self._in.take("command", "pounds", "euro", "yen"):
            raise Unreadable
        return ""

    def _at_item_end(self) -> bool:
        token = self._in.peek()
        return token.kind in ("end", "separator") or token.text in (",", ";", ")", "]", "}", "\\", "&", "end", "rbrace")


def _is_named_point(node: Node) -> bool:
    if node.op != "multiply" or len(node.kids) != 2:
        return False
    name, point = node.kids
    return name.op == "symbol" and name.name[:1].isupper() and point.op == "group"


def _with_currency(currency: str, words: str) -> str:
    if not currency or words.startswith(("/", "per ")):
        return f"{currency} {words}".strip()
    # \$5 dollars tells the unit twice; \$5 million does not.
    scale, rest = scaled_words(words)
    return currency if scale == 1 else f"{words[: len(words) - len(rest)].strip()} {currency}"


def unit_words(stream: Stream) -> str:
    """Words with the powers and strokes of a unit, joined by spaces; empty when none begins here."""
    parts: list[str] = []
    while _continues(stream, parts):
        token = stream.next()
        parts.append(" " if token.text in ("cdot", "circ") else token.text)
    return " ".join(parts)


def _continues(stream: Stream, parts: list[str]) -> bool:
    """Whether the next token belongs to the unit whose `parts` were read."""
    token = stream.peek()
    match token.kind:
        case "word":
            return True
        case "letter":
            return bool(parts) or (token.upright and (stream.at("word", ahead=1) or stream.at("letter", ahead=1)))
        case "number":
            return bool(parts) and parts[-1] in ("^", "{", "-")
        case "command":
            return stream.at_minutes() or (bool(parts) and token.text in ("cdot", "circ"))
        case "sign" if not parts:
            return token.text in ("/", "(") and stream.at("word", ahead=1)
        case "sign":
            opening = {"}": "{", ")": "("}.get(token.text)
            return token.text in _IN_UNITS and (not opening or parts.count(opening) > parts.count(token.text))
    return False

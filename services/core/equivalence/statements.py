"""The parser of whole answers: lists, relations, ratios, unions of intervals, matrices. Pure; total."""

from services.core.equivalence.expressions import Expressions
from services.core.equivalence.lexer import Unreadable, tokenize
from services.core.equivalence.lexicon import ENVIRONMENTS
from services.core.equivalence.quantities import Quantities
from services.core.equivalence.stream import Stream
from services.core.equivalence.tree import Node

_SETS = frozenset(("group", "set", "union", "intersection", "minus_set", "builder"))
_MAX_CELLS = 400


def parse(text: str) -> Node:
    """The tree of a tidy answer. Raises `Unreadable` when it is not of the grammar."""
    parser = _Statements(Stream(tokenize(text)))
    node = parser.listing()
    if not parser.stream.at("end"):
        raise Unreadable
    return node


class _Statements:
    """Lists of items; an item is a chain of relations between quantities."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._quantities = Quantities(stream, Expressions(stream, self.listing, self._environment))

    def listing(self) -> Node:
        """item (separator item)*; the separators are `,` `;` `and` `or` and the end of a row."""
        self.stream.deeper()
        items: list[Node] = []
        separators: list[str] = []
        while True:
            items.append(self._item())
            found = self._separators()
            if not found or self._at_close():
                break
            separators.append(found)
        self.stream.depth -= 1
        return items[0] if len(items) == 1 else Node("list", tuple(items), " ".join(separators))

    def _separators(self) -> str:
        """The strongest of the separators here ("," < "and" < "or" < ";"); empty when there is none."""
        found = ""
        while True:
            token = self.stream.peek()
            if token.kind == "separator":
                found = token.text
            elif token.text in (",", ";") and token.kind in ("sign", "command"):
                found = found or token.text
            elif token.kind == "command" and token.text == "cup":
                # Between inequalities; between sets it was taken before.
                found = "or"
            elif token.kind == "command" and token.text == "\\":
                found = found or ";"
            elif token.kind == "sign" and token.text == "&":
                found = found or ","
            else:
                return found
            self.stream.next()

    def _at_close(self) -> bool:
        token = self.stream.peek()
        return token.kind == "end" or token.text in (")", "]", "}", "rangle", "rbrace", "end")

    def _item(self) -> Node:
        left = self._side()
        kids, relations = [left], []
        while self.stream.at("relation") and not (self.stream.bars and self.stream.at("relation", "|", ":")):
            relations.append(self.stream.next().text)
            kids.append(self._side())
            if len(kids) > 12:
                raise Unreadable
        if not relations:
            return left
        return Node("relation", tuple(kids), " ".join(relations))

    def _side(self) -> Node:
        """A ratio a : b : c, or the one quantity that it would begin with."""
        parts = [self._combined()]
        while not self.stream.bars and (self.stream.take("sign", ":") or self.stream.take("relation", ":")):
            parts.append(self._combined())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    def _combined(self) -> Node:
        """Sets joined by \\cup, \\cap, \\setminus."""
        node = self._quantities.quantity()
        while node.op in _SETS or node.name in ("ℝ", "ℤ", "ℕ", "ℚ", "ℂ"):
            if self.stream.take("command", "cup"):
                node = Node("union", (node, self._quantities.quantity()))
            elif self.stream.take("command", "cap"):
                node = Node("intersection", (node, self._quantities.quantity()))
            elif self.stream.take("command", "setminus", "backslash"):
                node = Node("minus_set", (node, self._quantities.quantity()))
            else:
                break
        return node

    def _environment(self) -> Node:
        """`\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}` and its kin."""
        name = self.stream.raw_group().rstrip("*")
        if name not in ENVIRONMENTS:
            raise Unreadable
        if name == "array" and self.stream.at("sign", "{"):
            self.stream.raw_group()
        self.stream.deeper()
        bars, self.stream.bars = self.stream.bars, 0
        rows = self._rows()
        self.stream.require("command", "end")
        if self.stream.raw_group().rstrip("*") != name:
            raise Unreadable
        self.stream.bars = bars
        self.stream.depth -= 1
        return _matrix(name, rows)

    def _rows(self) -> list[list[Node]]:
        rows: list[list[Node]] = [[]]
        cells = 0
        while not self.stream.at("command", "end"):
            if self.stream.take("command", "\\"):
                rows.append([])
            elif self.stream.take("sign", "&"):
                continue
            else:
                rows[-1].append(self._item())
                self.stream.take("sign", ",")
                cells += 1
            if cells > _MAX_CELLS or self.stream.at("end"):
                raise Unreadable
        return [row for row in rows if row]


def _matrix(name: str, rows: list[list[Node]]) -> Node:
    if name in ("cases", "aligned"):
        if any(len(row) != 1 for row in rows) or not rows:
            raise Unreadable
        kids = tuple(row[0] for row in rows)
        return kids[0] if len(kids) == 1 else Node("list", kids, " ".join([";"] * (len(kids) - 1)))
    width = len(rows[0]) if rows else 0
    if width == 0 or any(len(row) != width for row in rows):
        raise Unreadable
    node = Node("matrix", tuple(cell for row in rows for cell in row), width=width)
    match name:
        case "vmatrix":
            return Node("call", (node,), "det")
        case "Bmatrix" | "Vmatrix":
            raise Unreadable
    return node

"""A cursor over tokens, shared by the parsers of expressions and of statements. Pure."""

from services.core.equivalence.lexer import Token, Unreadable

MAX_DEPTH = 40
_END = Token("end", "")


class Stream:
    """Tokens with a place, and how deep the parsers above it have gone."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self.place = 0
        self.depth = 0
        self.bars = 0  # open |...|, in which a bar closes

    def peek(self, ahead: int = 0) -> Token:
        place = self.place + ahead
        return self._tokens[place] if place < len(self._tokens) else _END

    def at_minutes(self) -> bool:
        """Whether `min` is here and no minimum: 5 min, not min(a, b)."""
        return self.at("command", "min") and self.peek(1).text not in ("(", "[", "{", "_", "\\{", "lbrace")

    def next(self) -> Token:
        token = self.peek()
        self.place += 1
        return token

    def at(self, kind: str, *texts: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token.kind == kind and (not texts or token.text in texts)

    def take(self, kind: str, *texts: str) -> bool:
        found = self.at(kind, *texts)
        self.place += found
        return found

    def require(self, kind: str, *texts: str) -> Token:
        if not self.at(kind, *texts):
            raise Unreadable
        return self.next()

    def put_back(self, token: Token) -> None:
        """Replace the token just taken by what is left of it."""
        self.place -= 1
        self._tokens[self.place] = token

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable

    def raw_group(self) -> str:
        """The texts of a braced group, or of one token, joined: the name in a subscript or under an accent."""
        if not self.take("sign", "{"):
            token = self.next()
            if token.kind in ("end", "relation", "separator"):
                raise Unreadable
            return token.text
        parts: list[str] = []
        level = 1
        while True:
            token = self.next()
            if token.kind == "end":
                raise Unreadable
            level += (token.text == "{") - (token.text == "}")
            if level == 0:
                return "".join(parts)
            parts.append(token.text)

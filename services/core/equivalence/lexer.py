"""From tidy text to tokens: numbers, letters, words, commands, signs. Total: any text gives tokens, in linear time."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from services.core.equivalence.lexicon import (
    CONSTANTS,
    CURRENCY_CODES,
    FUNCTIONS,
    LISTED,
    RELATIONS,
    SEPARATORS,
    SHORT_WORDS,
    TEXT_COMMANDS,
    UPRIGHT,
)
from services.core.equivalence.units import KNOWN as KNOWN_UNITS
from services.core.equivalence.units import UPRIGHT_LETTERS

Kind = Literal["number", "letter", "word", "command", "sign", "relation", "separator", "end"]

MAX_TOKENS = 1200
MAX_DIGITS = 1000
MAX_EXPONENT = 5000

_TOKEN = re.compile(
    r"(?P<repeating>\d*\.\d*\\(?:overline|bar|dot)\s*\{?\d+\}?)"
    r"|(?P<continued>\d*\.\d+\s*\\(?:ldots|dots|cdots|dotsc)(?![A-Za-z]))"
    r"|(?P<dotted>[1-9]\d{0,2}(?:\.\d{3})+,\d+(?![\d,.])|[1-9]\d{0,2}(?:\.\d{3}){2,}(?!\d))"
    r"|(?P<thousands>[1-9]\d{0,2}(?:,\d{3})+(?![\d,]|\.\d*,)(?:\.\d+)?)"
    r"|(?P<number>(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)"
    r"|(?P<command>\\(?:[A-Za-z]+|.|$))"
    r"|(?P<word>[^\W\d_]+)"
    r"|(?P<relation><=|>=|!=|=>|==|<|>|=)"
    r"|(?P<space>\s+)"
    r"|(?P<sign>.)",
    re.DOTALL,
)
# 0.333... and 0.1212...: the cycle at least twice more.
_CYCLE = re.compile(r"\d*?(\d{1,12}?)\1{2,}|\d*?(\d{2,12}?)\2")
_UPRIGHT_WORDS = re.compile(r"[A-Za-z]+(?:[/ ^][A-Za-z0-9]+|\^\{-?\d+\}|\^-\d+)*")
_BRACES = re.compile(r"[{}]")
_OPENING, _CLOSING = ("(", "[", "\\{", "\\langle"), (")", "]", "\\}", "\\rangle")


class Unreadable(Exception):
    """The text is not of the answer grammar; it is compared as text."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `value` is set on numbers; `spaced` says that white space came before; `upright` is \\text or so."""

    kind: Kind
    text: str
    value: Fraction | None = None
    spaced: bool = False
    upright: bool = False


def tokenize(text: str) -> list[Token]:
    """The tokens of tidy `text`. Raises `Unreadable` beyond `MAX_TOKENS` tokens or `MAX_DIGITS` digits."""
    tokens: list[Token] = []
    _lex(text, tokens, upright=False, depth=0)
    return tokens


def _lex(text: str, tokens: list[Token], *, upright: bool, depth: int) -> None:
    place, spaced, brackets = 0, False, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or len(tokens) > MAX_TOKENS or depth > 4:
            raise Unreadable
        kind, found = match.lastgroup or "", match[0]
        if brackets and "," in found and kind in ("thousands", "dotted") and not found.endswith(",000"):
            # (100,200) is a pair; a bracketed 1,000 can hardly be.
            found = found.partition(",")[0]
            kind = "number"
        place += len(found)
        if kind == "space":
            spaced = True
            continue
        if kind == "command" and (name := found[1:]) in TEXT_COMMANDS | UPRIGHT:
            place = _lex_argument(text, place, tokens, name, depth, spaced)
        else:
            brackets += (found in _OPENING) - (found in _CLOSING)
            tokens.extend(_tokens(kind, found, spaced, upright))
        spaced = False


def _lex_argument(text: str, place: int, tokens: list[Token], name: str, depth: int, spaced: bool) -> int:
    """The content of `\\text{...}`, as words; of `\\mathrm{e}` and the like, as a letter. Returns where it ends."""
    while place < len(text) and text[place] == " ":
        place += 1
    start, end = place, place + 1
    if place < len(text) and text[place] == "{":
        level = 0
        for brace in _BRACES.finditer(text, place):
            level += 1 if brace[0] == "{" else -1
            if level == 0:
                start, end = place + 1, brace.start()
                break
        else:
            raise Unreadable
    content, after = text[start:end], end + 1 if start > place else end
    if name == "mathrm" and content.strip() in UPRIGHT_LETTERS and tokens and tokens[-1].kind == "number":
        tokens.append(Token("word", content.strip(), None, True, True))
    elif name in UPRIGHT and len(content.strip()) == 1:
        tokens.extend(Token(t.kind, t.text, t.value, spaced, True) for t in _one(content.strip()))
    elif name in UPRIGHT and not _UPRIGHT_WORDS.fullmatch(content.strip()):
        _lex(content, tokens, upright=False, depth=depth + 1)
    else:
        _lex(content.replace("$", " "), tokens, upright=True, depth=depth + 1)
    return after


def _one(char: str) -> list[Token]:
    return _tokens("word" if char.isalpha() else "number" if char.isdecimal() else "sign", char, False, False)


def _tokens(kind: str, text: str, spaced: bool, upright: bool) -> list[Token]:
    match kind:
        case "number" | "thousands" | "dotted" | "repeating" | "continued":
            return [Token("number", text, _value(kind, text), spaced, upright)]
        case "command":
            return [_command(text[1:], spaced)]
        case "word":
            return _words(text, spaced, upright)
        case "relation":
            return [Token("relation", {"==": "=", "=>": ">="}.get(text, text), None, spaced)]
        case _:
            return [Token("sign", text, None, spaced, upright)]


def _command(name: str, spaced: bool) -> Token:
    if name in RELATIONS:
        return Token("relation", RELATIONS[name], None, spaced)
    if name in SEPARATORS:
        return Token("separator", SEPARATORS[name], None, spaced)
    return Token("command", name, None, spaced)


def _words(text: str, spaced: bool, upright: bool) -> list[Token]:
    lower = text.lower()
    if lower in SEPARATORS:
        return [Token("separator", SEPARATORS[lower], None, spaced, True)]
    if (text in FUNCTIONS or text in LISTED or text in CONSTANTS) and not (upright and lower in KNOWN_UNITS):
        return [Token("command", text, None, spaced)]
    if len(text) == 1:
        kind: Kind = "word" if upright and text in UPRIGHT_LETTERS else "letter"
        return [Token(kind, text, None, spaced, upright)]
    # NO and AB name segments; no and cm are words.
    if (
        upright
        or len(text) > 3
        or lower in CURRENCY_CODES
        or (not text.isupper() and (lower in SHORT_WORDS or lower in KNOWN_UNITS))
    ):
        return [Token("word", text, None, spaced, upright)]
    return [Token("letter", char, None, spaced and i == 0) for i, char in enumerate(text)]


def _value(kind: str, text: str) -> Fraction:
    if len(text) > MAX_DIGITS:
        raise Unreadable
    if kind == "dotted":
        whole, _, part = text.partition(",")
        return Fraction(f"{whole.replace('.', '')}.{part or 0}")
    if kind == "thousands":
        return Fraction(text.replace(",", ""))
    if kind == "repeating":
        return _repeating(text)
    if kind == "continued":
        return _continued(text)
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) > 5 or abs(int(exponent or 0)) > MAX_EXPONENT:
        raise Unreadable
    whole, _, part = mantissa.partition(".")
    value = Fraction(int(whole + part or "0"), 10 ** len(part))
    return value * Fraction(10) ** int(exponent) if exponent else value


def _continued(text: str) -> Fraction:
    """`0.1666...` goes on as it began; a decimal without a cycle is told by its dots to be no exact number."""
    plain = text.partition("\\")[0].strip()
    part = plain.partition(".")[2]
    match = _CYCLE.fullmatch(part) if len(part) <= 40 else None
    if match is None:
        raise Unreadable
    cycle = match[1] or match[2]
    return _repeating(f"{plain}\\overline{{{cycle}}}")


def _repeating(text: str) -> Fraction:
    """`0.1\\overline{6}` is the geometric series it stands for."""
    plain, _, cycle = text.partition("\\")
    cycle = re.sub(r"\D", "", cycle)
    whole, _, part = plain.partition(".")
    scale = 10 ** len(part)
    return Fraction(int(whole + part or "0"), scale) + Fraction(int(cycle), scale * (10 ** len(cycle) - 1))

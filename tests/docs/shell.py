"""Pages of documentation as commands: what a person would type, with the line where it stands. Runs nothing.

It reads the shell that the pages use (continued lines, quotes, heredocs, lists, pipes, redirections, `until ... done`,
assignments, `$(...)`) and no more of it.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/guides").glob("*.md")),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy").rglob("README.md")),
    "benchmarks/README.md",
    "models/README.md",
]
_FENCE = re.compile(r"^```(\w*)$")
_SEPARATORS = {";", "&&", "||", "|", "&"}
_REDIRECTIONS = {">", ">>", "<"}
_KEYWORDS = {"until", "while", "do", "done", "if", "then", "else", "fi"}
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the line of its first command, and the text between the headings around it."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]
    section: str


@dataclass(frozen=True)
class Command:
    """One simple command. `files` are the heredocs of its block up to here, by the name that they are written to."""

    block: Block
    line: int
    words: tuple[str, ...]
    assigned: dict[str, str] = field(default_factory=dict)
    output: str | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.block.page}:{self.line}"

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value}" for name, value in self.assigned.items()), *self.words])


def blocks(page: str, text: str | None = None) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = (text if text is not None else (ROOT / page).read_text(encoding="utf-8")).splitlines()
    inside, headings, fences = False, [0], []
    for number, line in enumerate(lines):
        if _FENCE.match(line):
            inside = not inside
            fences.append(number)
        elif not inside and line.startswith("#"):
            headings.append(number)
    headings.append(len(lines))
    for first, last in zip(fences[::2], fences[1::2], strict=True):
        above = max(h for h in headings if h <= first)
        below = min(h for h in headings if h > first)
        section = "\n".join(lines[above:below])
        language = lines[first].removeprefix("```")
        yield Block(page, first + 2, language, tuple(lines[first + 1 : last]), section)


def commands(block: Block) -> Iterator[Command]:
    """The simple commands of a block, those in `$(...)` before the command that they stand in."""
    files: dict[str, str] = {}
    for line, tokens, heredoc in _logical_lines(block):
        for words in _split(tokens):
            plain, output = _without_redirections(words)
            if heredoc is not None and output is not None:
                files[output] = heredoc
            yield from _simple(block, line, plain, output, dict(files))


def _simple(block: Block, line: int, words: list[str], output: str | None, files: dict[str, str]) -> Iterator[Command]:
    assigned: dict[str, str] = {}
    while words and (words[0] in _KEYWORDS or _ASSIGNMENT.fullmatch(words[0])):
        word = words.pop(0)
        if match := _ASSIGNMENT.fullmatch(word):
            assigned[match[1]] = match[2]
    script = words.index("-c") + 1 if words[-2:-1] == ["-c"] else None  # sh -c '...': the shell inside reads it
    for place, text in enumerate([*words, *assigned.values()]):
        for inner in _SUBSTITUTION.findall(text) if place != script else ():
            for part in _split(_tokens(inner)):
                yield from _simple(block, line, part, None, files)
    if words or assigned:
        yield Command(block, line, tuple(words), assigned, output, files)


def _logical_lines(block: Block) -> Iterator[tuple[int, list[str], str | None]]:
    """(number of its first line, its tokens, its heredoc) of each whole line."""
    rest = list(enumerate(block.lines, block.line))
    while rest:
        number, line = rest.pop(0)
        while (tokens := _whole(line)) is None:
            line = f"{line[:-1]} {rest.pop(0)[1]}" if line.endswith("\\") else f"{line}\n{rest.pop(0)[1]}"
        heredoc = None
        if "<<" in tokens:
            end = tokens[tokens.index("<<") + 1]
            last = next(i for i, (_, text) in enumerate(rest) if text == end)
            heredoc = "\n".join(text for _, text in rest[:last]) + "\n"
            del rest[: last + 1]
        if tokens:
            yield number, tokens, heredoc


def _whole(line: str) -> list[str] | None:
    """The tokens of a line, or None if it goes on in the next."""
    if line.endswith("\\"):
        return None
    try:
        return _tokens(line)
    except ValueError:  # a quotation that is not closed yet
        return None


def _tokens(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    return list(lexer)


def _split(tokens: list[str]) -> Iterator[list[str]]:
    words: list[str] = []
    for token in tokens:
        if token in _SEPARATORS:
            yield words
            words = []
        else:
            words.append(token)
    if words:
        yield words


def _without_redirections(tokens: list[str]) -> tuple[list[str], str | None]:
    words: list[str] = []
    output = None
    rest = iter(tokens)
    for token in rest:
        if token in _REDIRECTIONS or token == "<<":
            target = next(rest)
            output = target if token in (">", ">>") else output
        else:
            words.append(token)
    return words, output


def script(text: str) -> list[Command]:
    """The commands of a script that a page gives to `sh -c`."""
    return list(commands(Block("sh -c", 1, "sh", tuple(text.splitlines()), "")))

"""Model input built from pieces: every text is encoded on its own, delimiters are appended by id. Pure: no tokenizer.

Ids are never searched for a delimiter, so text that looks like one cannot move a position or forge a score.
"""

from typing import Protocol


class PieceEncoder(Protocol):
    """Turns text into ids, with every special and added token of the tokenizer treated as ordinary text."""

    @property
    def newline_id(self) -> int:
        """The token of a single newline."""
        ...

    def first(self, text: str) -> list[int]:
        """The ids of `text` at the beginning of a sequence (a SentencePiece tokenizer adds its dummy prefix)."""
        ...

    def after_newline(self, text: str) -> list[int]:
        """The ids of `text` where a newline precedes it (no dummy prefix)."""
        ...


def blank_line(encoder: PieceEncoder) -> list[int]:
    """The delimiter of the easy-to-hard format: two newline tokens, never one merged token."""
    return [encoder.newline_id, encoder.newline_id]


def easy_to_hard_prompt(encoder: PieceEncoder, bos_id: int | None, problem: str) -> list[int]:
    """The ids of `# Question\\n\\n{problem}\\n\\n# Solution\\n\\n`, as Sun et al. (2024) write a problem."""
    gap = blank_line(encoder)
    return [
        *([] if bos_id is None else [bos_id]),
        *encoder.first("# Question"),
        *gap,
        *encoder.after_newline(problem.strip()),
        *gap,
        *encoder.after_newline("# Solution"),
        *gap,
    ]


def easy_to_hard_text(problem: str) -> str:
    """The same prompt as text, for servers that take no ids; there a special token inside `problem` is one."""
    return f"# Question\n\n{problem.strip()}\n\n# Solution\n\n"

"""Where one step ends and the next begins: the only definition of a step. Pure text functions.

A solution is written as the paper writes it (Sun et al., 2024, section 4.1 and its PRM800K preparation): steps
between blank lines, then `# Answer` and the answer line. The answer block belongs to the last step and is no
reasoning step of its own.
"""

import re
from collections import deque
from collections.abc import Sequence

ANSWER_HEADER = "# Answer"

# Asks a chat model for the format that `split_steps` and `extract_answer` read.
STEPWISE_SYSTEM_PROMPT = (
    "Solve the problem step by step. Put a blank line between steps. End with the final answer within \\boxed{}."
)

_BLANK_LINES = re.compile(r"\n\s*\n")
_HEADER_LINE = re.compile(r"^[^\S\n]*# Answer[^\S\n]*$", re.MULTILINE)


def split_steps(text: str) -> list[str]:
    """The steps of a solution, in order, trimmed, empties dropped.

    The `# Answer` block, when there is one, stays attached to the last step, so that `"\\n\\n".join` of the result
    is the solution again and one score per step is always well defined.
    """
    reasoning, block = split_answer_block(text)
    steps = _paragraphs(reasoning)
    if block is None:
        return steps
    if not steps:
        return [block]
    return [*steps[:-1], f"{steps[-1]}\n\n{block}"]


def join_steps(steps: Sequence[str]) -> str:
    """The solution text of these steps; inverse of `split_steps` on its own output."""
    return "\n\n".join(steps)


def split_answer_block(text: str) -> tuple[str, str | None]:
    """`(reasoning, block)`: the text before the last `# Answer` header, and the block from that header on.

    Both are trimmed, and blank lines inside the block are collapsed to one. `block` is None without a header.
    """
    header = last_answer_header(text)
    if header is None:
        return text.strip(), None
    body = join_steps(_paragraphs(text[header.end() :]))
    block = f"{ANSWER_HEADER}\n\n{body}" if body else ANSWER_HEADER
    return text[: header.start()].strip(), block


def last_answer_header(text: str) -> re.Match[str] | None:
    """The last line that is exactly `# Answer`, or None."""
    return next(iter(deque(_HEADER_LINE.finditer(text), maxlen=1)), None)


def awaits_answer(text: str) -> bool:
    """Whether the text ends in an `# Answer` header that has nothing after it yet."""
    header = last_answer_header(text)
    return header is not None and not text[header.end() :].strip()


def _paragraphs(text: str) -> list[str]:
    return [part for part in (p.strip() for p in _BLANK_LINES.split(text)) if part]

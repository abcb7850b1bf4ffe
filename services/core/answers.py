"""Reading the final answer out of a solution, and writing it in one normal form. Pure text functions.

Extraction order, last match wins within each kind: the text after the last `# Answer` header; the content of the last
balanced `\\boxed{...}` / `\\fbox{...}`; "the (final) answer is ...". There is no "last number in the text" fallback:
a solution without an answer has none.
"""

import re
import unicodedata
from collections import deque

from services.core.steps import last_answer_header

# Box openings, escaped characters (an escaped brace is no brace), braces.
_BRACES = re.compile(r"(?P<box>\\(?:f?boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_SAYS = re.compile(r"\banswer[ \t]*(?:is|:)[ \t]*:?[ \t]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


def extract_answer(text: str, *, truncated: bool = False) -> str | None:
    """The final answer as written in `text`, or None.

    Of a truncated sample (`finish_reason="length"`) counts only what cannot have been cut in the middle: a box that
    closed, or an answer line that ended.
    """
    for found in (_after_header(text, truncated), _last_box(text), None if truncated else _said(text)):
        if found:
            return found
    return None


def _after_header(text: str, truncated: bool) -> str | None:
    header = last_answer_header(text)
    if header is None:
        return None
    line, ended, _ = text[header.end() :].lstrip().partition("\n")
    if truncated and not ended:
        return _last_box(line)
    return _last_box(line) or _undress(line) or None


def _last_box(text: str) -> str | None:
    """The content of the balanced box that opens last, in one pass over the text."""
    boxes: list[tuple[int, int]] = []  # depth and start of each box that is open
    depth, last_start, last = 0, -1, None
    for brace in _BRACES.finditer(text):
        if brace["box"]:
            boxes.append((depth, brace.end()))
        depth += bool(brace["box"] or brace["open"]) - bool(brace["close"])
        if brace["close"] and boxes and boxes[-1][0] == depth:
            _, start = boxes.pop()
            content = text[start : brace.start()].strip()
            if content and start > last_start:
                last_start, last = start, content
        depth = max(depth, 0)
    return last


def _said(text: str) -> str | None:
    sayings = deque(_SAYS.finditer(text), maxlen=1)
    if not sayings:
        return None
    rest = text[sayings[0].end() :].partition("\n")[0].strip()
    math = re.match(r"\$+([^$]+)\$", rest)
    if math:
        return math[1].strip() or None
    end = _SENTENCE_END.search(rest)
    return _undress(rest[: end.start()] if end else rest) or None


def _undress(answer: str) -> str:
    """Without the punctuation and math delimiters around it."""
    stripped = answer.strip().rstrip(".").strip()
    for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**")):
        if stripped.startswith(left) and stripped.endswith(right) and len(stripped) > len(left) + len(right):
            stripped = stripped[len(left) : -len(right)].strip()
    return stripped.rstrip(".").strip()


_SPELLINGS = [
    (re.compile(r"\\left\b|\\right\b|\\displaystyle|\\!|\\,|\\;|\\:|\\ "), ""),
    (re.compile(r"\\[dt]frac\b"), r"\\frac"),
    (re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\%|%"), "%"),
    (re.compile(r"\\\$"), ""),
    (re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))"), ""),
    (re.compile(r"\s+"), ""),
]


# Longer ones are no answers that a person would spell in two ways, and Unicode normalisation of them is not linear.
_MAX_NORMALISED = 4096


def normalise(answer: str) -> str:
    """One spelling for answers that differ only in typography: Unicode compatibility forms, LaTeX spacing and sizing,
    thousands separators, `\\text{}`, surrounding math delimiters, white space, letter case of words."""
    if len(answer) > _MAX_NORMALISED:
        return answer.strip()
    text = _undress(unicodedata.normalize("NFKC", answer).replace("\N{MINUS SIGN}", "-"))
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text.lower() if text.isalpha() and len(text) > 1 else text

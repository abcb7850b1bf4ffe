"""Reading the final answer out of a solution, and writing it in one normal form. Pure text functions.

Extraction order, last match wins within each kind: the text after the last `# Answer` header; the content of the last
balanced `\\boxed{...}` / `\\fbox{...}`; "the (final) answer is ...". There is no "last number in the text" fallback:
a solution without an answer has none.
"""

import re
import unicodedata

from services.core.steps import last_answer_header

_BOX = re.compile(r"\\f?boxed\s*|\\fbox\s*")
_SAYS = re.compile(r"(?:final\s+answer|answer)\s*(?:is|:)\s*:?\s*(?P<rest>[^\n]+)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


def extract_answer(text: str, *, truncated: bool = False) -> str | None:
    """The final answer as written in `text`, or None.

    A truncated sample (`finish_reason="length"`) counts only a boxed answer or an answer block that it still reached;
    the looser "the answer is" form may have been cut in the middle and is not read.
    """
    for found in (_after_header(text), _last_box(text), None if truncated else _said(text)):
        if found:
            return found
    return None


def _after_header(text: str) -> str | None:
    header = last_answer_header(text)
    if header is None:
        return None
    lines = (line.strip() for line in text[header.end() :].splitlines())
    line = next((line for line in lines if line), "")
    return _last_box(line) or _undress(line) or None


def _last_box(text: str) -> str | None:
    for opening in reversed(list(_BOX.finditer(text))):
        content = _balanced(text, opening.end())
        if content is not None and content.strip():
            return content.strip()
    return None


def _balanced(text: str, start: int) -> str | None:
    """The content of the `{...}` group at `start`, braces balanced, `\\{` and `\\}` not counted; None when unclosed."""
    if not text.startswith("{", start):
        return None
    depth, at = 0, start
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
            continue
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[start + 1 : at]
        at += 1
    return None


def _said(text: str) -> str | None:
    sayings = list(_SAYS.finditer(text))
    if not sayings:
        return None
    rest = sayings[-1]["rest"].strip()
    math = re.match(r"\$+(.+?)\$+", rest)
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


def normalise(answer: str) -> str:
    """One spelling for answers that differ only in typography: Unicode compatibility forms, LaTeX spacing and sizing,
    thousands separators, `\\text{}`, surrounding math delimiters, white space, letter case of words."""
    text = _undress(unicodedata.normalize("NFKC", answer).replace("\N{MINUS SIGN}", "-"))
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text.lower() if text.isalpha() and len(text) > 1 else text

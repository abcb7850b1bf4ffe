"""Reading the final answer out of a solution. Pure text functions, in time proportional to the text.

Kinds of marks, the first that is found counts, and within a kind the last match: the text after the `# Answer` header;
the content of the last balanced `\\boxed{...}` / `\\fbox{...}`; the line after `####` (GSM8K); "the (final) answer
is ...". There is no "last number in the text" fallback: a solution without an answer has none.
"""

import re
from collections import deque

from services.core.equivalence.typography import undress
from services.core.steps import last_answer_header

# Box openings, escaped characters (an escaped brace is no brace), braces.
_BRACES = re.compile(r"(?P<box>\\(?:f?boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:f?boxed|fbox)[ \t]*(-?[\w.]+)")
_HASHES = re.compile(r"^####[ \t]*(\S[^\n]*)$", re.MULTILINE)
_SAYS = re.compile(
    r"\banswer\b[*_]{0,3}[ \t]*(?P<sign>is|:|=)[ \t]*\}?[ \t]*"
    r"(?:(?:therefore|thus|then|hence|simply|indeed|just|definitely|clearly|for sure|as follows|equal to|given by)\b)?"
    r",?[ \t]*:?[ \t]*[*_]{0,3}:?(?:[ \t]*(?:option|choice)[ \t]+(?=\(?[A-J]\b))?"
    # A heading: "### Final Answer", "**Answer**".
    r"|^[ \t]*(?:[#*_]{1,6}[ \t]*(?:the[ \t]+)?(?:final[ \t]+)?|final[ \t]+)answer[ \t*_]{0,20}$"
    r"|^\W{0,4}answer[ \t]+(?=\$|\\\(|\\\[)",
    re.IGNORECASE | re.MULTILINE,
)
# A math display that follows, past at most one blank line.
_DISPLAY = re.compile(
    r"[ \t]*(?:\n[ \t]*){0,2}"
    r"(?:\$\$(?P<d>(?:\\.|[^$\\])+)\$\$|\$(?=\S)(?P<m>(?:\\.|[^$\\])+)(?<=\S)\$(?!\d)"
    r"|\$[ \t]+(?P<s>(?:\\.|[^$\\\n])+)[ \t]\$(?!\d)"
    r"|\\\[(?P<b>(?:[^\\]|\\[^\]])+)\\\]|\\\((?P<p>(?:[^\\]|\\[^)])+)\\\))"
)
# Where the sample ends and another turn begins, written out by a tokenizer that keeps its special tokens.
_TURN_END = re.compile(r"</s>|<\|(?:im_end|endoftext|eot_id|end_of_text)\|>|<｜end▁of▁sentence｜>|<\|im_start\|>user")
_SENTENCE_END = re.compile(r"[.!?][*_]{0,3}(?:\s|$)")
# Of an answer that is told in a sentence, "The largest $n$ is 34" or "Jane started 3 hours ago".
_SENTENCE = re.compile(r"[A-Z][a-z]*,?(?: +\S+){2,40}")
_PREDICATE = re.compile(r"\b(?:is|are|was|were|equals)[ \t]+(?:equal to[ \t]+)?(?=[-+\d$\\(\[{.])")
_FIGURE = re.compile(r"(?<![\w.,])\\?\$?-?\d+(?:[.,/:]\d+)*%?(?!\w)")
_REASON = re.compile(r",?\s+(?:because|since|so|which|where|hence|thus|therefore|as)\b|,\s+(?:it|and so|not)\b|\s+=>")
_NO_ANSWER = re.compile(
    r"(?:not|correct|right|wrong|incorrect|as follows|unique|yes or no)\b|\W*\\(?:f?boxed|fbox)\s*\{\s*\}",
    re.IGNORECASE,
)
# A sample that says "the answer is" more often than this is rambling; the last ones are looked at.
_MOST_SAYINGS = 8


def extract_answer(text: str, *, truncated: bool = False) -> str | None:
    """The final answer as written in `text`, or None.

    Of a truncated sample (`finish_reason="length"`) counts only what cannot have been cut in the middle: a box that
    closed, or an answer line that ended.
    """
    turn = _TURN_END.search(text)
    if turn and text[: turn.start()].strip():
        text, truncated = text[: turn.start()], False
    for found in (_after_header(text, truncated), _last_box(text)):
        if found:
            return found
    return None if truncated else _after_hashes(text) or _said(text)


def _after_header(text: str, truncated: bool) -> str | None:
    header = last_answer_header(text)
    if header is None:
        return None
    rest = text[header.end() :].lstrip()
    display = _DISPLAY.match(rest)
    if display and "\n" in display[0]:
        return undress(_content(display)) or None
    line, ended, _ = rest.partition("\n")
    if truncated and not ended:
        return _last_box(line)
    return _last_box(line) or undress(line) or None


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
    return last if last is not None else _last_bare_box(text)


def _last_bare_box(text: str) -> str | None:
    found = deque(_BARE_BOX.finditer(text), maxlen=1)
    return found[0][1] if found else None


def _after_hashes(text: str) -> str | None:
    lines = deque(_HASHES.finditer(text), maxlen=1)
    return undress(lines[0][1]) or None if lines else None


def _said(text: str) -> str | None:
    """What the last saying says that is an answer: "our answer is correct" is none."""
    for saying in reversed(deque(_SAYS.finditer(text), maxlen=_MOST_SAYINGS)):
        display = _DISPLAY.match(text, saying.end())
        if display:
            return undress(_content(display)) or None
        found = _in_line(text, saying.end())
        if found and not _NO_ANSWER.match(found) and not _announces(found):
            return found if saying["sign"] == "is" else _told(found)
    return None


def _announces(line: str) -> bool:
    """Whether the line ends in a saying: a heading under a heading promises an answer once more and is none."""
    return any(saying.end() == len(line) for saying in _SAYS.finditer(line))


def _told(sentence: str) -> str:
    """What a sentence says that is an answer: what it says that something is, else its only figure."""
    if not _SENTENCE.fullmatch(sentence):
        return sentence
    predicates = deque(_PREDICATE.finditer(sentence), maxlen=1)
    if predicates:
        return undress(sentence[predicates[0].end() :]) or sentence
    figures = _FIGURE.findall(sentence)
    return figures[0] if len(figures) == 1 else sentence


def _content(display: re.Match[str]) -> str:
    return next(group for group in display.groups() if group is not None)


def _in_line(text: str, start: int) -> str | None:
    """The first sentence on the line, or on the next one when the line has no more, without its reasons."""
    rest = text[start : start + 2000].lstrip(" \t")
    if rest.startswith("\n"):
        rest = rest.lstrip()
    line = rest.partition("\n")[0].strip()
    for mark in (_SENTENCE_END, _REASON):
        end = mark.search(line)
        line = line[: end.start()] if end else line
    line = line.rstrip(" *_")
    if line.count("$") - line.count("\\$") == 1 and line.endswith("$"):
        line = line[:-1]  # closes what opened before the saying
    return undress(line) or None

"""The usual respellings of an answer: what people and models write for the same thing. For tests."""

import re
from collections.abc import Iterator
from fractions import Fraction

_FRACTION = re.compile(r"(?<!\d)(?<!\d )\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
_INTEGER = re.compile(r"(?<![\d.,_^{])\d{4,9}(?![\d.,_])")


def respellings(answer: str) -> Iterator[str]:
    """Spellings of `answer` that say exactly the same."""
    yield f" {answer} "
    yield f"${answer}$"
    yield f"\\({answer}\\)"
    yield f"\\boxed{{{answer}}}"
    yield f"{answer}."
    yield f"The answer is ${answer}$"
    yield answer.replace("\\dfrac", "\\frac")
    yield answer.replace("\\frac", "\\dfrac")
    yield answer.replace("\\frac", "\\tfrac")
    yield answer.replace("\\left", "").replace("\\right", "")
    yield re.sub(r"(?<!\\)([(\[])", r"\\left\1", re.sub(r"(?<!\\)([)\]])", r"\\right\1", _unsized(answer)))
    yield re.sub(r"\s*([-+=,])\s*", r" \1 ", answer) if "\\!" not in answer and "text" not in answer else answer
    yield answer.replace("-", "\N{MINUS SIGN}")
    yield answer.replace("\\pi", "\N{GREEK SMALL LETTER PI}").replace("\\infty", "\N{INFINITY}")
    yield answer.replace("^\\circ", "\N{DEGREE SIGN}")
    yield answer.replace("pmatrix", "bmatrix")
    yield answer.replace("\\mbox", "\\text").replace(",\\! ", ",").replace(",\\!", ",")
    yield _FRACTION.sub(_decimal, answer)
    yield _FRACTION.sub(r"(\1)/(\2)" if _FRACTION.fullmatch(answer) else r"\\frac{\1}{\2}", answer)
    yield _INTEGER.sub(lambda m: f"{int(m[0]):,}", answer)
    yield _INTEGER.sub(lambda m: f"{int(m[0]):,}".replace(",", "{,}"), answer)


def _unsized(answer: str) -> str:
    return answer.replace("\\left", "").replace("\\right", "")


def _decimal(match: re.Match[str]) -> str:
    """A fraction that terminates, as its decimal."""
    value = Fraction(int(match[1]), int(match[2]))
    for places in range(7):
        if (value * 10**places).denominator == 1:
            digits = str(abs(value.numerator * 10**places // value.denominator)).rjust(places + 1, "0")
            sign = "-" if value < 0 else ""
            return f"{sign}{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else match[0]
    return match[0]

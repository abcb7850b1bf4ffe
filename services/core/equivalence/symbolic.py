"""Computer algebra on two answers, for formulas that our grammar does not read: math-verify over latex2sympy.

Slow, and neither time nor memory is bounded from within: run it where it can be killed
(`services.orchestrator.grading`). The libraries are imported when first used. Answers are read by latex2sympy's
grammar alone; math-verify's reader of plain expressions calls Python's `eval` and is not used.
"""

import logging
import re
from typing import Any

from services.core.equivalence.typography import tidy

_MAX_CHARS = 600
_MAX_NESTING = 12
_MAX_DIGITS = 60
_LONG_NUMBER = re.compile(rf"\d{{{_MAX_DIGITS},}}")
# 9^9^9 and (9^9)^9; 99999!; factorials of factorials.
_TOWER = re.compile(
    r"\^[^+=,&]{0,40}\^[^+=,&]{0,40}\^|\d{4,}\s*\}?\s*!|!\s*\)?\s*!|\^\s*\{?\s*\d{4,}|binom\s*\{?\s*\d+(?:\d{3}|\s*\^)"
)


# What math-verify reads as if it were not there: words, primes, dots.
_OVERLOOKED = re.compile(
    r"\\(?:text\w*|mathrm|mathbf|mbox|operatorname|[lc]?dots\w*|approx|pmod|begin)(?![A-Za-z])|'|\.\."
)
_UPRIGHT_LETTER = re.compile(r"\\mathrm\s*\{\s*([A-Za-z])\s*\}")


def load() -> None:
    """Import the libraries now; a second or so."""
    import latex2sympy2_extended  # noqa: F401
    import math_verify  # noqa: F401

    for name in ("math_verify", "math_verify.parser", "math_verify.grader", "math_verify.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def fits(answer: str) -> bool:
    """Whether `answer` may be given to computer algebra at all: small enough, and read as a whole."""
    if len(answer) > _MAX_CHARS or _LONG_NUMBER.search(answer) or _TOWER.search(answer):
        return False
    if _OVERLOOKED.search(answer):
        return False
    depth = 0
    for char in answer:
        depth += (char in "{([") - (char in "})]")
        if depth > _MAX_NESTING:
            return False
    return True


def symbolically_equal(a: str, b: str) -> bool:
    """Whether computer algebra says so in both directions. Symmetric."""
    a, b = _prepared(a), _prepared(b)
    if not fits(a) or not fits(b):
        return False
    left, right = _parsed(a), _parsed(b)
    if not left or not right:
        return False
    return _verified(left, right) and _verified(right, left)


def _prepared(answer: str) -> str:
    """Tidy, the differential of an integral as a plain letter."""
    return _UPRIGHT_LETTER.sub(r"\1", tidy(answer)) if len(answer) <= _MAX_CHARS else answer


def _parsed(answer: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    found: list[Any] = parse(
        f"${answer}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
    )
    # Beside expressions it gives the text that it found, which would be compared as text.
    return [item for item in found if not isinstance(item, str)]


def _verified(gold: list[Any], target: list[Any]) -> bool:
    from math_verify import verify

    return bool(verify(gold, target, timeout_seconds=None))

"""Which answers are the same answer: strictly, for grouping votes, and forgivingly, against a reference. Pure.

The way of an answer: `typography` (one spelling), `lexer`, `statements`, `quantities` and `expressions` (a tree),
`evaluate` (exact rationals, or 100 digits at fixed points), `forms` (what it says, with its canonical key). Model text
is parsed by this grammar alone, never evaluated as code. `grading` compares two answers; `symbolic` is computer algebra
for what the grammar does not read, slow and to be run where it can be killed (`services.orchestrator.grading`).
"""

from services.core.equivalence.grading import Method, Mode, Verdict, quick_verdict
from services.core.equivalence.reading import read_answer

__all__ = ["Method", "Mode", "Verdict", "canonical_key", "equivalent", "quick_verdict"]


def canonical_key(answer: str) -> str:
    """The name of the class of all answers equal to `answer`, strictly: the key that votes are grouped by."""
    return read_answer(answer).key


def equivalent(a: str, b: str) -> bool:
    """Whether two answers are strictly the same: reflexive, symmetric and transitive."""
    return canonical_key(a) == canonical_key(b)

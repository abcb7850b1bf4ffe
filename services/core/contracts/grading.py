"""The orchestrator's contract of `POST /v1/grade`. Pure."""

from typing import Annotated

from pydantic import Field

from services.core.contracts.base import MAX_TEXT_CHARS, Wire
from services.core.equivalence import Method, Mode

MAX_PAIRS = 1024

AnswerText = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class GradePair(Wire):
    """A reference answer and the answer to grade. Either may be empty; an empty answer equals only an empty one."""

    gold: AnswerText
    pred: AnswerText


class GradeRequest(Wire):
    """`POST /v1/grade`: are these answers equal? `reference` forgives units and the like; `voting` is strict."""

    pairs: list[GradePair] = Field(min_length=1, max_length=MAX_PAIRS)
    mode: Mode = Mode.REFERENCE


class GradeResult(Wire):
    """One verdict. `method` says which comparison decided; `timed_out` that none did in time, which is not equal."""

    equal: bool
    method: Method
    timed_out: bool


class GradeResponse(Wire):
    """One result a pair, in order."""

    results: list[GradeResult]

"""The verifier's contract: `POST /v1/score`, `GET /v1/models`. Pure."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.aggregation import Aggregation, aggregate
from services.core.contracts.base import (
    MAX_SOLUTIONS,
    MAX_STEPS,
    ModelInfo,
    NonBlank,
    Probability,
    Problem,
    Wire,
    exactly_one,
)

VerifierKind = Literal["prm", "orm", "oprm"]


class SolutionInput(Wire):
    """A solution to score: either its steps, one score each, or its text, which `split_steps` divides."""

    model_config = ConfigDict(json_schema_extra=exactly_one("steps", "text"))

    steps: list[NonBlank] | None = Field(default=None, min_length=1, max_length=MAX_STEPS)
    text: NonBlank | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.steps is None) == (self.text is None):
            raise PydanticCustomError("invalid_body", "give either steps or text")
        return self


class ScoreRequest(Wire):
    """`POST /v1/score`. All solutions answer the same problem."""

    problem: Problem
    solutions: list[SolutionInput] = Field(min_length=1, max_length=MAX_SOLUTIONS)
    model: str | None = None


class StepScore(Wire):
    """The probability that the step is right."""

    score: Probability


class Aggregates(Wire):
    """The score of a solution under every aggregation; None where it has none (see `aggregate`)."""

    prod: float | None
    min: float | None
    mean: float | None
    last: float | None
    outcome: float | None

    @classmethod
    def of(cls, steps: Sequence[float], outcome: float | None) -> Self:
        """Those of a solution with these step scores and this outcome."""
        return cls(**{how.value: aggregate(steps, outcome, how) for how in Aggregation})


class ItemError(Wire):
    """Why one solution of a request has no score."""

    code: str
    message: str


class SolutionScore(Wire):
    """The scores of one solution, in the order of the question. With `error` set, steps are empty."""

    index: int
    steps: list[StepScore]
    outcome: Probability | None
    aggregate: Aggregates
    first_error: int | None
    tokens: int
    cached: bool
    flags: list[str]
    error: ItemError | None


class ScoreUsage(Wire):
    """`tokens` = length of all inputs; `tokens_computed` of them went through the model.

    `tokens_cached` did not: the same prefix had been computed for another solution of the batch or for an earlier one.
    """

    tokens: int
    tokens_computed: int
    tokens_cached: int


class ScoreTimings(Wire):
    """Where the time of one score request went; travels as response headers, not in the body."""

    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    batch_tokens: int
    batch_solutions: int


class ScoreResponse(Wire):
    """The answer of `POST /v1/score`."""

    id: str
    model: str
    kind: VerifierKind
    solutions: list[SolutionScore]
    usage: ScoreUsage


class VerifierInfo(ModelInfo):
    """What a verifier serves. `default_aggregation` is the family's, used where a request names none."""

    kind: VerifierKind
    family: str
    default_aggregation: Aggregation


class VerifierModels(Wire):
    """`GET /v1/models` of a verifier."""

    object: Literal["list"] = "list"
    data: list[VerifierInfo]

"""What all contracts share: strictness, limits, checked strings, the model card, the error envelope. Pure."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_SAMPLES = 1024
MAX_SOLUTIONS = 1024
MAX_STEPS = 1024
MAX_TEXT_CHARS = 524_288  # four characters a token of the longest context
MAX_NEW_TOKENS = 131_072  # the longest context that today's math models have
MAX_STOPS = 16
MAX_STOP_CHARS = 256


class Wire(BaseModel):
    """Base of everything that crosses a boundary."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _non_blank_problem(problem: str) -> str:
    if not problem.strip():
        raise PydanticCustomError("empty_problem", "the problem is blank")
    return problem


def _non_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "the text is blank")
    return text


# The page says what the validators check, as far as a schema can.
_NOT_BLANK = Field(json_schema_extra={"pattern": r"\S"})
Problem = Annotated[str, AfterValidator(_non_blank_problem), _NOT_BLANK]
NonBlank = Annotated[str, AfterValidator(_non_blank), _NOT_BLANK]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def one_of(*values: Any) -> Any:
    """A type for the page alone: these values, which a validator checks."""
    return Annotated[Any, WithJsonSchema({"enum": list(values)})]


def exactly_one(*names: str) -> dict[str, Any]:
    """The JSON schema of an object in which one of these fields, and no other of them, is given and not null."""
    given = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    return {"oneOf": given}


def at_most_one(*names: str) -> dict[str, Any]:
    """As `exactly_one`, or none of them."""
    both = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    return {"not": {"allOf": both}}


class ModelInfo(Wire):
    """A served model, as `GET /v1/models` lists it (OpenAI's schema plus `context_length` in tokens, if known)."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "e2h"
    context_length: int | None = None


class ErrorBody(Wire):
    """One fault, as every service answers it."""

    type: str
    code: str
    message: str
    param: str | None
    request_id: str
    retryable: bool


class ErrorEnvelope(Wire):
    """The body of every response with status >= 400."""

    error: ErrorBody

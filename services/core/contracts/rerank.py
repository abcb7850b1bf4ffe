"""The contract of `POST /v1/rerank` and `/v2/rerank`: what Cohere's and Jina's clients send and read. Pure.

Their fields that would change which text is scored, or what comes back, are honoured or refused by name; the one that
only asks for haste (`priority`) is read and ignored.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from services.core.contracts.base import MAX_SOLUTIONS, NonBlank, Probability, Problem, Wire, one_of


class RerankDocument(Wire):
    """A document in its long form. Fields beside `text` are refused: nothing would score them."""

    text: NonBlank


def _long_form(document: Any) -> Any:
    return {"text": document} if isinstance(document, str) else document


def _text_alone(fields: list[str] | None) -> list[str] | None:
    if fields not in (None, ["text"]):
        raise PydanticCustomError("unsupported_parameter", "documents have the field text alone")
    return fields


def _nothing_but(allowed: Any, why: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value is not None and value is not allowed:
            raise PydanticCustomError("unsupported_parameter", "not supported: {why}", {"why": why})
        return value

    return check


_Document = Annotated[RerankDocument, BeforeValidator(_long_form, json_schema_input_type=NonBlank | RerankDocument)]
_WHOLE = "a document is scored whole or refused"
_NeverCut = BeforeValidator(_nothing_but(False, _WHOLE), json_schema_input_type=one_of(None, False))
_NoLimit = BeforeValidator(_nothing_but(None, _WHOLE), json_schema_input_type=one_of(None))
_NoSpans = BeforeValidator(
    _nothing_but(None, "a score belongs to a step, see step_scores"), json_schema_input_type=one_of(None)
)


class RerankRequest(Wire):
    """Rank `documents` (solutions) by how right they are as answers to `query` (the problem).

    `top_n` over the number of documents returns all of them. Nulls are what Cohere's client sends for options that
    its caller left out.
    """

    query: Problem
    documents: list[_Document] = Field(min_length=1, max_length=MAX_SOLUTIONS)
    model: str | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = None
    rank_fields: Annotated[
        list[str] | None, AfterValidator(_text_alone), Field(json_schema_extra={"enum": [None, ["text"]]})
    ] = None
    truncation: Annotated[bool | None, _NeverCut] = None
    max_chunks_per_doc: Annotated[None, _NoLimit] = None
    max_tokens_per_doc: Annotated[None, _NoLimit] = None
    relevant_spans: Annotated[None, _NoSpans] = None
    priority: int | None = Field(default=None, description="Ignored: requests are served in order of arrival.")


class RerankResult(Wire):
    """One document of the ranking; `index` is its place in the request, `document` is there when it was asked for."""

    index: int
    relevance_score: Probability
    document: RerankDocument | None = Field(default=None, exclude_if=lambda document: document is None)
    step_scores: list[Probability]


class RerankUsage(Wire):
    """Tokens of all inputs: the query counts once a document, whatever was cached."""

    total_tokens: int


class RerankResponse(Wire):
    """The documents, best first; equal scores in the order of the request."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage

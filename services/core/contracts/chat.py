"""The contract of `POST /v1/chat/completions` and `GET /v1/models`: OpenAI's schema, as far as it can be kept. Pure.

Every field of theirs has one of three fates, written below: honoured; ignored, as it asks for no other answer; or taken
only with the value that asks for what happens anyway, and refused by name with any other. Nothing is passed on unread.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from services.core.aggregation import Aggregation
from services.core.contracts.base import MAX_NEW_TOKENS, MAX_SAMPLES, NonBlank, Wire, one_of
from services.core.contracts.generation import Message, SolveSampling
from services.core.contracts.searching import SearchOptions
from services.core.contracts.solving import EarlyStopChoice, SolveResponse, StrategyChoice
from services.core.seeds import MAX_SEED
from services.core.strategies import SolveStrategy

MODELS: dict[str, SolveStrategy] = {
    "e2h": SolveStrategy.WEIGHTED,
    "e2h/best_of_n": SolveStrategy.BEST_OF_N,
    "e2h/majority": SolveStrategy.MAJORITY,
    "e2h/beam": SolveStrategy.BEAM,
    "e2h/dvts": SolveStrategy.DVTS,
}
MAX_TURNS = 257  # the problem, and as many turns before it as a generator takes
# `developer` is OpenAI's newer name for the system's role.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def _turn(value: Any) -> Any:
    """A turn as its clients write it, as a `Message`: text parts joined by line ends, empty extras dropped."""
    if not isinstance(value, dict):
        return value
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise PydanticCustomError("unsupported_content", "roles are system, developer, user and assistant")
    if any(extra for name, extra in value.items() if name not in ("role", "content")):
        raise PydanticCustomError(
            "unsupported_content", "a message has a role and text; names, calls and audio it has not"
        )
    return {"role": _ROLES[role], "content": _text(value.get("content"))}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts: list[Any] = content if isinstance(content, list) else [None]
    texts = [part["text"] for part in parts if _is_text(part)]
    if len(texts) != len(parts):
        raise PydanticCustomError("unsupported_content", "content is text, or parts of type text; nothing is fetched")
    return "\n".join(texts)


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() == {"type", "text"}
        and part["type"] == "text"
        and isinstance(part["text"], str)
    )


class ChatPart(Wire):
    """A part of a message, as the OpenAPI page describes it."""

    type: Literal["text"]
    text: str


class ChatTurn(Wire):
    """One message, as the OpenAPI page describes it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[ChatPart], Field(min_length=1)]


def _ends_in_a_problem(messages: list[Message]) -> list[Message]:
    if not messages:
        raise PydanticCustomError("empty_problem", "there is no message")
    if messages[-1].role != "user":
        raise PydanticCustomError("unsupported_content", "the last message is the user's: the problem")
    if not messages[-1].content.strip():
        raise PydanticCustomError("empty_problem", "the problem is blank")
    return messages


def _only(*allowed: Any) -> BeforeValidator:
    """Takes null and `allowed`, which ask for what happens anyway; refuses the rest by its name."""

    def check(value: Any) -> Any:
        if value is None or any(type(value) is type(each) and value == each for each in allowed):
            return value
        raise PydanticCustomError("unsupported_parameter", "this is not supported")

    return BeforeValidator(check, json_schema_input_type=one_of(None, *allowed))


def _ignored(why: str) -> Any:
    return Field(default=None, description=f"Ignored: {why}.")


class ChatOptions(Wire):
    """The fields of `POST /v1/solve` that OpenAI's schema has not: `extra_body={"e2h": {...}}`. `n` is of samples."""

    n: int = Field(default=8, ge=1, le=MAX_SAMPLES)
    strategy: StrategyChoice | None = None
    aggregation: Aggregation | None = None
    sampling: SolveSampling | None = None
    search: SearchOptions | None = None
    early_stop: EarlyStopChoice = False
    on_verifier_failure: Literal["fail", "majority"] = "fail"
    include_candidates: bool = False
    reference: NonBlank | None = None


class StreamOptions(Wire):
    """What a stream holds beside its text."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[bool | None, _only(False)] = None


_Turn = Annotated[Message, BeforeValidator(_turn, json_schema_input_type=ChatTurn)]
_Whole = Annotated[int | None, Field(ge=1, le=MAX_NEW_TOKENS)]


class ChatRequest(Wire):
    """`POST /v1/chat/completions`: the last message is the problem, `n` the number of returned choices."""

    model: str = Field(json_schema_extra={"enum": list(MODELS)})  # another is not found, which is no fault of the body
    messages: Annotated[
        list[_Turn],
        Field(max_length=MAX_TURNS, json_schema_extra={"minItems": 1}),
        AfterValidator(_ends_in_a_problem),
    ]
    n: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    max_tokens: _Whole = None
    max_completion_tokens: _Whole = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    e2h: ChatOptions = Field(default_factory=ChatOptions)

    user: Any = _ignored("nothing is kept by user")
    safety_identifier: Any = _ignored("nothing is kept by user")
    metadata: Any = _ignored("nothing is stored")
    store: Any = _ignored("nothing is stored")
    prompt_cache_key: Any = _ignored("prefixes are found by content")
    prompt_cache_retention: Any = _ignored("prefixes are kept while there is room")
    service_tier: Any = _ignored("there is one")

    audio: Annotated[Any, _only()] = None
    frequency_penalty: Annotated[Any, _only(0, 0.0)] = None
    function_call: Annotated[Any, _only("none", "auto")] = None
    functions: Annotated[Any, _only([])] = None
    logit_bias: Annotated[Any, _only({})] = None
    logprobs: Annotated[Any, _only(False)] = None
    modalities: Annotated[Any, _only(["text"])] = None
    parallel_tool_calls: Annotated[Any, _only(True, False)] = None
    prediction: Annotated[Any, _only()] = None
    presence_penalty: Annotated[Any, _only(0, 0.0)] = None
    reasoning_effort: Annotated[Any, _only()] = None
    response_format: Annotated[Any, _only({"type": "text"})] = None
    stop: Annotated[Any, _only([])] = None
    tool_choice: Annotated[Any, _only("none", "auto")] = None
    tools: Annotated[Any, _only([])] = None
    top_logprobs: Annotated[Any, _only(0)] = None
    verbosity: Annotated[Any, _only()] = None
    web_search_options: Annotated[Any, _only()] = None

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_name(cls, limit: int | None, info: ValidationInfo) -> int | None:
        if limit is not None and info.data.get("max_tokens") is not None:
            raise PydanticCustomError("invalid_body", "give either max_tokens or max_completion_tokens")
        return limit

    @field_validator("stream")
    @classmethod
    def _one_choice(cls, stream: bool | None, info: ValidationInfo) -> bool | None:
        if stream and (info.data.get("n") or 1) > 1:
            raise PydanticCustomError("unsupported_parameter", "a stream holds one choice, the selected answer")
        return stream

    @field_validator("stream_options")
    @classmethod
    def _of_a_stream(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise PydanticCustomError("unsupported_parameter", "stream_options need stream")
        return options

    @property
    def choices(self) -> int:
        """How many choices to return."""
        return self.n or 1


class ChatUsage(Wire):
    """Tokens of all samples, returned or not."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


ChatFinish = Literal["stop", "length"]


class ChatReply(Wire):
    """The assistant's message: a whole solution."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Wire):
    """One returned solution."""

    index: int
    message: ChatReply
    finish_reason: ChatFinish
    logprobs: None = None


class ChatCompletion(Wire):
    """The answer. `e2h` is that of `POST /v1/solve`, with the evidence; its candidates only where asked for."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    e2h: SolveResponse


class ChatDelta(Wire):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=lambda role: role is None)
    content: str | None = Field(default=None, exclude_if=lambda content: content is None)


class ChatChunkChoice(Wire):
    """The one choice of a stream."""

    index: Literal[0] = 0
    delta: ChatDelta
    finish_reason: ChatFinish | None = None
    logprobs: None = None


class ChatChunk(Wire):
    """One event of a stream. The one with the `finish_reason` has `e2h`, as the whole answer has."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: ChatUsage | None = None
    e2h: SolveResponse | None = Field(default=None, exclude_if=lambda evidence: evidence is None)


class ChatModel(Wire):
    """A strategy, as a model that clients can name. `created` is when the service started, in seconds since 1970."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "e2h"


class ChatModels(Wire):
    """`GET /v1/models` of the orchestrator."""

    object: Literal["list"] = "list"
    data: list[ChatModel]

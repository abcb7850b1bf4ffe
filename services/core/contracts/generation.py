"""The generator's contract: sampling parameters, `POST /v1/generate`, `GET /v1/models`. Pure."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.contracts.base import MAX_NEW_TOKENS, MAX_SAMPLES, MAX_STOPS, ModelInfo, Problem, StopString, Wire
from services.core.seeds import MAX_SEED


class SolveSampling(Wire):
    """How samples are drawn. Without a seed each request draws its own."""

    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(default=1024, ge=1, le=MAX_NEW_TOKENS)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)


class Sampling(SolveSampling):
    """`SolveSampling` plus what only the generator's own route offers."""

    stop: list[StopString] = Field(default_factory=list, max_length=MAX_STOPS)


def refuse_identical_samples(n: int, temperature: float) -> None:
    """Refuse n copies of the greedy sample, which would make a vote look unanimous."""
    if n > 1 and temperature == 0.0:
        raise PydanticCustomError(
            "identical_samples",
            "temperature 0 draws the same sample every time: raise it, or set n = 1 (of a search: beam_width x expand)",
        )


class Message(Wire):
    """One turn of a conversation in the generator's chat template."""

    role: Literal["system", "user", "assistant"]
    content: str


SampleIndex = Annotated[int, Field(ge=0, lt=MAX_SAMPLES)]


class GenerateRequest(Wire):
    """`POST /v1/generate`. `messages`, when given, replaces the system prompt and precedes the problem.

    `indices`, when given, names the n samples that are wanted instead of 0 to n - 1. With the same `sampling.seed`,
    sample i is drawn with the same seed whoever draws it: what one replica lost, another makes again.
    """

    problem: Problem
    messages: list[Message] | None = Field(default=None, max_length=256)
    prefix: str = ""
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    indices: list[SampleIndex] | None = Field(default=None, min_length=1, max_length=MAX_SAMPLES)
    sampling: Sampling = Field(default_factory=Sampling)
    stream: bool = False

    @property
    def sample_indices(self) -> Sequence[int]:
        """The indices of the n samples that are wanted."""
        return range(self.n) if self.indices is None else self.indices

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        refuse_identical_samples(self.n, self.sampling.temperature)
        if self.indices is not None and not len(set(self.indices)) == len(self.indices) == self.n:
            raise PydanticCustomError("sample_indices", "indices names n samples, each once")
        return self


FinishReason = Literal["stop", "length", "cancelled"]


class Completion(Wire):
    """One finished sample. `logprob` is the sum over its tokens, in nats; None when the engine does not tell.

    `stop_reason` is the string of `sampling.stop` that ended it; None when the model ended by itself, or the sample was
    cut: `finish_reason` is "stop" for both kinds of end. `prompt_tokens` are those that were read for this sample and
    told of no other, so that their sum is right whenever the sampling ends.
    """

    index: int
    text: str
    tokens: int
    finish_reason: FinishReason
    logprob: float | None
    seed: int
    prompt_tokens: int = 0
    stop_reason: str | None = None


class GenerationUsage(Wire):
    """Tokens of one generate request; the prompt is counted once, as it is computed once."""

    prompt_tokens: int
    completion_tokens: int


class GenerateDone(Wire):
    """The last event of a generation."""

    id: str
    model: str
    usage: GenerationUsage


class GenerateResponse(Wire):
    """The answer of `POST /v1/generate` without streaming; completions in index order."""

    id: str
    model: str
    completions: list[Completion]
    usage: GenerationUsage


class GeneratorModels(Wire):
    """`GET /v1/models` of a generator."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]

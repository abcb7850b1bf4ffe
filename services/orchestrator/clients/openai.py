"""OpenAIGenerator: any OpenAI-compatible server (an existing `vllm serve`, a hosted API) as a `Generator`.

Each sample is a request of its own with a seed of its own, so that it is delivered as it finishes and can be
cancelled alone. Only fields of the OpenAI schema are sent.
"""

import asyncio
import secrets
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Literal, TypeVar

import httpx2
import openai
from openai.types.chat.chat_completion import Choice
from openai.types.completion_choice import CompletionChoice

from services.core.answers import extract_answer
from services.core.contracts import (
    Completion,
    FinishReason,
    GenerateDone,
    GenerateRequest,
    GenerationUsage,
    ModelInfo,
)
from services.core.errors import E2HError, InvalidRequest, Overloaded, UpstreamContract, UpstreamUnavailable
from services.core.pieces import easy_to_hard_text
from services.core.seeds import MAX_SEED, derive_seed
from services.orchestrator.clients.transport import raise_past_deadline, within_budget

Style = Literal["chat", "easy-to-hard"]
OneChoice = TypeVar("OneChoice")
Answer = TypeVar("Answer")

# OpenAI's own API takes 64-bit seeds, some compatible servers only 32-bit ones.
_SEED_MASK = 2**31 - 1


class OpenAIGenerator:
    """Samples through `/chat/completions` (style chat) or `/completions` (style easy-to-hard)."""

    def __init__(
        self, client: openai.AsyncOpenAI, model: str, style: Style, system_prompt: str, max_concurrency: int = 64
    ) -> None:
        self._client = client
        self._model = model
        self._style = style
        self._system_prompt = system_prompt
        usual = client.timeout
        self._timeout = usual if isinstance(usual, httpx2.Timeout) else httpx2.Timeout(usual)
        self._slots = asyncio.Semaphore(max_concurrency)

    async def info(self) -> ModelInfo:
        return ModelInfo(id=self._model)

    async def ready(self) -> str | None:
        try:
            await self._client.models.list(timeout=2.0)
        except openai.OpenAIError:
            return "the OpenAI-compatible server does not answer"
        return None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbelow(MAX_SEED)
        samples = [asyncio.create_task(self._sample(request, seed, index)) for index in request.sample_indices]
        prompt_tokens = completion_tokens = 0
        try:
            for finished in asyncio.as_completed(samples):
                completion = await finished
                # Every sample is a request that reads the prompt; the server counts it each time.
                prompt_tokens += completion.prompt_tokens
                completion_tokens += completion.tokens
                yield completion
            usage = GenerationUsage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
            yield GenerateDone(id=f"gen-{uuid.uuid4().hex}", model=self._model, usage=usage)
        finally:
            for sample in samples:
                sample.cancel()
            await asyncio.gather(*samples, return_exceptions=True)

    async def close(self) -> None:
        await self._client.close()

    async def _sample(self, request: GenerateRequest, seed: int, index: int) -> Completion:
        sample_seed = derive_seed(seed, index) & _SEED_MASK
        try:
            async with self._slots:
                raise_past_deadline()
                choice, usage = await self._ask(request, sample_seed)
            return _completion(index, sample_seed, choice, usage, request)
        except openai.OpenAIError as error:
            if isinstance(error, openai.APITimeoutError):
                raise_past_deadline(error)
            raise _translated(error) from error
        except (ValueError, TypeError, AttributeError):
            # The library hands on what the server sent, whatever its types say; its errors quote it.
            raise UpstreamContract("the OpenAI-compatible server answered outside of its schema") from None

    async def _ask(
        self, request: GenerateRequest, seed: int
    ) -> "tuple[CompletionChoice | Choice, openai.types.CompletionUsage | None]":
        sampling = request.sampling
        if self._style == "easy-to-hard":
            if request.messages:
                raise InvalidRequest(
                    "text completions hold no conversation", param="messages", code="unsupported_parameter"
                )
            written = await self._client.completions.create(
                model=self._model,
                prompt=easy_to_hard_text(request.problem) + request.prefix,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                stop=sampling.stop or openai.omit,
                seed=seed,
                timeout=within_budget(self._timeout),
            )
            return _only(_answer(written, openai.types.Completion).choices), written.usage
        if request.prefix:
            raise InvalidRequest(
                "a chat server cannot continue a partial solution", param="prefix", code="unsupported_parameter"
            )
        answered = await self._client.chat.completions.create(
            model=self._model,
            messages=self._conversation(request),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=sampling.stop or openai.omit,
            seed=seed,
            timeout=within_budget(self._timeout),
        )
        return _only(_answer(answered, openai.types.chat.ChatCompletion).choices), answered.usage

    def _conversation(self, request: GenerateRequest) -> "list[openai.types.chat.ChatCompletionMessageParam]":
        turns: list[openai.types.chat.ChatCompletionMessageParam] = []
        for message in request.messages or []:
            match message.role:
                case "system":
                    turns.append({"role": "system", "content": message.content})
                case "user":
                    turns.append({"role": "user", "content": message.content})
                case "assistant":
                    turns.append({"role": "assistant", "content": message.content})
        if not any(turn["role"] == "system" for turn in turns):
            turns.insert(0, {"role": "system", "content": self._system_prompt})
        return [*turns, {"role": "user", "content": request.problem}]


def _completion(
    index: int,
    seed: int,
    choice: CompletionChoice | Choice,
    usage: "openai.types.CompletionUsage | None",
    request: GenerateRequest,
) -> Completion:
    if usage is None:
        raise UpstreamContract("the OpenAI-compatible server does not tell its usage")
    text = choice.text if isinstance(choice, CompletionChoice) else choice.message.content or ""
    return Completion(
        index=index,
        text=text,
        tokens=usage.completion_tokens,
        finish_reason=_finish_reason(choice.finish_reason),
        logprob=None,
        seed=seed,
        prompt_tokens=usage.prompt_tokens,
        stop_reason=_stop_reason(choice, text, request),
    )


def _stop_reason(choice: CompletionChoice | Choice, text: str, request: GenerateRequest) -> str | None:
    """Which stop string ended the sample, as vLLM's server tells (`stop_reason`; an id of a token is the model's end).

    Of a server that does not tell: a sample that gave an answer, or nothing at all, ended by itself; another was
    stopped, by the first of the stop strings.
    """
    stops = request.sampling.stop
    if not stops or choice.finish_reason != "stop":
        return None
    told = choice.model_extra or {}
    if "stop_reason" in told:
        return told["stop_reason"] if told["stop_reason"] in stops else None
    ended = not text.strip() or extract_answer(request.prefix + text) is not None
    return None if ended else stops[0]


def _answer(answer: Answer, expected: type[Answer]) -> Answer:
    if not isinstance(answer, expected):
        raise UpstreamContract("the OpenAI-compatible server did not answer with JSON of its schema")
    return answer


def _only(choices: Sequence[OneChoice]) -> OneChoice:
    if not choices or len(choices) != 1:
        raise UpstreamContract("the OpenAI-compatible server gave another number of choices than was asked")
    return choices[0]


def _finish_reason(reason: str | None) -> FinishReason:
    return "stop" if reason == "stop" else "length" if reason == "length" else "cancelled"


def _translated(error: openai.OpenAIError) -> E2HError:
    if isinstance(error, openai.RateLimitError):
        return Overloaded("the OpenAI-compatible server limits our rate")
    if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        return InvalidRequest("the OpenAI-compatible server refuses this request (its context may be too short)")
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError | openai.NotFoundError):
        return UpstreamUnavailable("the OpenAI-compatible server refuses our key or does not serve the model")
    return UpstreamUnavailable(f"the OpenAI-compatible server failed ({type(error).__name__})")

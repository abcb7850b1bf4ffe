"""Engines that take exactly as long as they are told, none at all by default: what is measured is all the rest."""

import asyncio
from collections.abc import AsyncGenerator

from services.core.aggregation import Aggregation, first_error
from services.core.contracts import (
    Aggregates,
    Completion,
    GenerateDone,
    GenerateRequest,
    GenerationUsage,
    ModelInfo,
    ScoreRequest,
    ScoreResponse,
    ScoreTimings,
    ScoreUsage,
    SolutionInput,
    SolutionScore,
    StepScore,
    VerifierInfo,
)
from services.core.steps import split_steps

_STEPS = "Six times seven is seven added six times.\n\nThat is 42 and no less.\n\n"
_TOKENS = 40


class InstantGenerator:
    """Sample i comes `every_s` after sample i - 1. `serial`: one request at a time, as one engine that is full."""

    def __init__(self, every_s: float = 0.0, serial: bool = False) -> None:
        self._every_s = every_s
        self._turn = asyncio.Semaphore(1 if serial else 1_000_000)

    async def info(self) -> ModelInfo:
        return ModelInfo(id="instant-generator")

    async def ready(self) -> str | None:
        return None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        async with self._turn:
            for index in request.sample_indices:
                await asyncio.sleep(self._every_s)
                yield _completion(index)
        usage = GenerationUsage(prompt_tokens=10, completion_tokens=request.n * _TOKENS)
        yield GenerateDone(id="instant", model="instant-generator", usage=usage)


class InstantVerifier:
    """Takes `each_s` for a solution, one after another, as one device does."""

    def __init__(self, each_s: float = 0.0) -> None:
        self._each_s = each_s
        self._device = asyncio.Lock()

    async def info(self) -> VerifierInfo:
        return VerifierInfo(id="instant-verifier", kind="prm", family="instant", default_aggregation=Aggregation.PROD)

    async def ready(self) -> str | None:
        return None

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        if self._each_s:
            async with self._device:
                await asyncio.sleep(self._each_s * len(request.solutions))
        solutions = [_scored(place, given) for place, given in enumerate(request.solutions)]
        tokens = _TOKENS * len(solutions)
        response = ScoreResponse(
            id="instant",
            model="instant-verifier",
            kind="prm",
            solutions=solutions,
            usage=ScoreUsage(tokens=tokens, tokens_computed=tokens, tokens_cached=0),
        )
        return response, ScoreTimings(tokenize_ms=0, queue_ms=0, inference_ms=0, batch_tokens=0, batch_solutions=0)


def _completion(index: int) -> Completion:
    # Texts differ, so that each is scored; answers repeat, as answers do.
    text = f"{_STEPS}So says sample {index}.\n\n# Answer\n\n{40 + index % 3}"
    return Completion(index=index, text=text, tokens=_TOKENS, finish_reason="stop", logprob=-1.0, seed=index)


def _scored(place: int, given: SolutionInput) -> SolutionScore:
    scores = [0.9] * len(given.steps or split_steps(given.text or ""))
    return SolutionScore(
        index=place,
        steps=[StepScore(score=p) for p in scores],
        outcome=None,
        aggregate=Aggregates.of(scores, None),
        first_error=first_error(scores),
        tokens=_TOKENS,
        cached=False,
        flags=[],
        error=None,
    )

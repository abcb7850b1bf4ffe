"""Known samples and scores, delivered again as an engine would: a `Generator` that counts tokens, and a `Verifier`.

The clock is tokens: of the samples, `slots` are decoded at the same time, in index order, each one token a step, as
continuous batching does. So what an early stop saves is exact and does not depend on the machine.
"""

import asyncio
import heapq
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from services.core.aggregation import first_error
from services.core.contracts import (
    Aggregates,
    Completion,
    GenerateDone,
    GenerateRequest,
    GenerationUsage,
    ItemError,
    ModelInfo,
    ScoreRequest,
    ScoreResponse,
    ScoreTimings,
    ScoreUsage,
    SolutionScore,
    StepScore,
    VerifierInfo,
)
from services.core.equivalence import Mode, Verdict, canonical_key, quick_verdict
from services.core.equivalence.grading import Method
from services.verifier.model import RawScores
from training.lab.generation import Sample

# Turns of the event loop in which scores and votes of one sample are done before the next one comes.
_SETTLE = 24


@dataclass(frozen=True)
class Span:
    """When a sample is decoded, in steps of the engine; end minus start is its length in tokens."""

    index: int
    start: int
    end: int


def schedule(lengths: Sequence[int], slots: int) -> list[Span]:
    """The spans of samples of these lengths, in the order in which they finish."""
    free = [0] * slots
    spans = []
    for index, tokens in enumerate(lengths):
        start = heapq.heappop(free)
        heapq.heappush(free, start + tokens)
        spans.append(Span(index, start, start + tokens))
    return sorted(spans, key=lambda span: (span.end, span.index))


class ReplayGenerator:
    """Delivers `samples` in the order in which `slots` slots finish them; `written` are tokens until end or stop."""

    def __init__(self, samples: Sequence[Sample], slots: int) -> None:
        self._samples = samples
        self._spans = schedule([s.tokens for s in samples], slots)
        self.written = 0

    async def info(self) -> ModelInfo:
        return ModelInfo(id="replay")

    async def ready(self) -> str | None:
        return None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        now = 0
        try:
            for span in self._spans:
                now = span.end
                yield self._completion(span.index)
                for _ in range(_SETTLE):
                    await asyncio.sleep(0)
        finally:
            self.written = sum(max(0, min(now, s.end) - s.start) for s in self._spans)
        usage = GenerationUsage(prompt_tokens=0, completion_tokens=self.written)
        yield GenerateDone(id="replay", model="replay", usage=usage)

    def _completion(self, index: int) -> Completion:
        sample = self._samples[index]
        return Completion(
            index=index,
            text=sample.text,
            tokens=sample.tokens,
            finish_reason="length" if sample.truncated else "stop",
            logprob=sample.log_likelihood,
            seed=index,
        )


class ReplayVerifier:
    """Answers at once with the scores that `known` has of a text."""

    def __init__(self, info: VerifierInfo, known: Mapping[str, RawScores]) -> None:
        self._info = info
        self._known = known

    async def info(self) -> VerifierInfo:
        return self._info

    async def ready(self) -> str | None:
        return None

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        solutions = [self._solution(i, s.text or "") for i, s in enumerate(request.solutions)]
        response = ScoreResponse(
            id="replay",
            model=self._info.id,
            kind=self._info.kind,
            solutions=solutions,
            usage=ScoreUsage(tokens=0, tokens_computed=0, tokens_cached=0),
        )
        return response, ScoreTimings(tokenize_ms=0, queue_ms=0, inference_ms=0, batch_tokens=0, batch_solutions=0)

    def _solution(self, index: int, text: str) -> SolutionScore:
        raw = self._known[text]
        error = None if raw.steps else ItemError(code="empty_step", message="no step to score")
        return SolutionScore(
            index=index,
            steps=[StepScore(score=p) for p in raw.steps],
            outcome=raw.outcome,
            aggregate=Aggregates.of(raw.steps, raw.outcome),
            first_error=first_error(raw.steps),
            tokens=0,
            cached=True,
            flags=[],
            error=error,
        )


class QuickGrader:
    """A `Grader` in this process: the lab's answers are numbers, which need no computer algebra."""

    async def keys(self, answers: Sequence[str]) -> list[str]:
        return [canonical_key(answer) for answer in answers]

    async def grade(self, pairs: Sequence[tuple[str, str]], mode: Mode) -> list[Verdict]:
        undecided = Verdict(False, Method.REFUSED)
        return [quick_verdict(gold, pred, mode) or undecided for gold, pred in pairs]

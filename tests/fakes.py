"""Fakes of both ports: scripted samples in any order, scores as a function of the step, and every kind of trouble."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.core.aggregation import Aggregation, first_error
from services.core.contracts import (
    Aggregates,
    Completion,
    FinishReason,
    GenerateDone,
    GenerateRequest,
    GenerationUsage,
    ItemError,
    ModelInfo,
    ScoreRequest,
    ScoreResponse,
    ScoreTimings,
    ScoreUsage,
    SolutionInput,
    SolutionScore,
    StepScore,
    VerifierInfo,
    VerifierKind,
)
from services.core.equivalence import Method, Mode, Verdict, canonical_key, quick_verdict
from services.core.errors import E2HError, UpstreamUnavailable
from services.core.steps import split_steps

TOKENS_OF_A_SAMPLE = 7
PROMPT_TOKENS = 11
TOKENS_OF_A_SOLUTION = 13


def solution(answer: str, *steps: str) -> str:
    """A solution text that ends in `answer`."""
    return "\n\n".join([*(steps or ("It is so.",)), "# Answer", answer])


@dataclass
class FakeGenerator:
    """Delivers `texts[i]` (from the beginning again when n is larger) as sample i, in `order`."""

    texts: Sequence[str]
    order: Sequence[int] | None = None
    finish_reasons: Mapping[int, FinishReason] = field(default_factory=dict)
    stop_reasons: Mapping[int, str] = field(default_factory=dict)
    holds: Mapping[int, asyncio.Event] = field(default_factory=dict)  # a sample waits for its event
    failure: E2HError | None = None
    fail_after: int = 0  # samples delivered before `failure`
    ends: bool = True  # whether the last event comes
    not_ready: str | None = None
    requests: list[GenerateRequest] = field(default_factory=list)
    delivered: int = 0
    cancelled: int = 0

    async def info(self) -> ModelInfo:
        return ModelInfo(id="fake-generator", context_length=512)

    async def ready(self) -> str | None:
        return self.not_ready

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        self.requests.append(request)
        try:
            for place, index in enumerate(self.order or request.sample_indices):
                self._maybe_fail(place)
                await asyncio.sleep(0)  # as an engine does, give way to others between samples
                if index in self.holds:
                    await self.holds[index].wait()
                self.delivered += 1
                first = place == 0
                yield self._completion(index).model_copy(update={"prompt_tokens": PROMPT_TOKENS if first else 0})
            self._maybe_fail(request.n)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        if self.ends:
            usage = GenerationUsage(prompt_tokens=PROMPT_TOKENS, completion_tokens=request.n * TOKENS_OF_A_SAMPLE)
            yield GenerateDone(id="gen-fake", model="fake-generator", usage=usage)

    def _maybe_fail(self, delivered: int) -> None:
        if self.failure is not None and delivered == self.fail_after:
            raise self.failure

    def _completion(self, index: int) -> Completion:
        return Completion(
            index=index,
            text=self.texts[index % len(self.texts)],
            tokens=TOKENS_OF_A_SAMPLE,
            finish_reason=self.finish_reasons.get(index, "stop"),
            logprob=-1.5,
            seed=1000 + index,
            stop_reason=self.stop_reasons.get(index),
        )


@dataclass
class TreeGenerator:
    """Continues a solution by the steps that `steps` lists behind it (sample i by the i-th, from the beginning again).

    A step that ends in a blank line was stopped there; after another the model ended.
    """

    steps: Mapping[str, Sequence[str]]
    failures: Mapping[str, E2HError] = field(default_factory=dict)  # behind which prefix
    holds: Mapping[str, asyncio.Event] = field(
        default_factory=dict
    )  # each continuation of a prefix waits for its event
    backwards: bool = False  # deliver the last continuation first
    cut: Sequence[str] = ()  # steps that end for want of tokens
    requests: list[GenerateRequest] = field(default_factory=list)
    delivered: int = 0
    cancelled: int = 0

    async def info(self) -> ModelInfo:
        return ModelInfo(id="tree-generator", context_length=512)

    async def ready(self) -> str | None:
        return None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        self.requests.append(request)
        indices = list(request.sample_indices)
        try:
            for index in reversed(indices) if self.backwards else indices:
                await asyncio.sleep(0)
                if request.prefix in self.failures:
                    raise self.failures[request.prefix]
                if request.prefix in self.holds:
                    await self.holds[request.prefix].wait()
                self.delivered += 1
                yield self._completion(request, index)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        usage = GenerationUsage(prompt_tokens=PROMPT_TOKENS, completion_tokens=request.n * TOKENS_OF_A_SAMPLE)
        yield GenerateDone(id="gen-tree", model="tree-generator", usage=usage)

    def _completion(self, request: GenerateRequest, index: int) -> Completion:
        steps = self.steps[request.prefix]
        step = steps[index % len(steps)]
        stopped = step.endswith("\n\n")
        return Completion(
            index=index,
            text=step.removesuffix("\n\n"),
            tokens=TOKENS_OF_A_SAMPLE,
            finish_reason="length" if step in self.cut else "stop",
            logprob=None,
            seed=(request.sampling.seed or 0) % 1000 + index,
            prompt_tokens=PROMPT_TOKENS if index == 0 else 0,
            stop_reason="\n\n" if stopped and step not in self.cut else None,
        )


@dataclass
class FakeVerifier:
    """Scores every step by `score_of`; an ORM or OPRM gives the last step's score as the outcome."""

    score_of: Callable[[str], float] = lambda step: 0.5
    kind: VerifierKind = "prm"
    default_aggregation: Aggregation = Aggregation.PROD
    error_of: Callable[[str], ItemError | None] = lambda text: None  # a solution's own error
    failure: E2HError | None = None
    fail_after: int = 0  # calls answered before `failure`
    info_failure: E2HError | None = None
    extra_steps: int = 0  # more step scores than steps
    hold: asyncio.Event | None = None  # every call waits for it
    not_ready: str | None = None
    requests: list[ScoreRequest] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)  # a first call has come
    answered: int = 0
    cancelled: int = 0

    async def info(self) -> VerifierInfo:
        if self.info_failure is not None:
            raise self.info_failure
        return VerifierInfo(
            id="fake-verifier",
            context_length=512,
            kind=self.kind,
            family="fake",
            default_aggregation=self.default_aggregation,
        )

    async def ready(self) -> str | None:
        return self.not_ready

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        self.requests.append(request)
        self.began.set()
        if self.failure is not None and len(self.requests) > self.fail_after:
            raise self.failure
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.answered += 1
        return self._response(request), ScoreTimings(
            tokenize_ms=1.5, queue_ms=2.25, inference_ms=3.0, batch_tokens=64, batch_solutions=len(request.solutions)
        )

    def _response(self, request: ScoreRequest) -> ScoreResponse:
        solutions = [self._solution(index, given) for index, given in enumerate(request.solutions)]
        tokens = TOKENS_OF_A_SOLUTION * len(solutions)
        usage = ScoreUsage(tokens=tokens, tokens_computed=tokens, tokens_cached=0)
        return ScoreResponse(id="score-fake", model="fake-verifier", kind=self.kind, solutions=solutions, usage=usage)

    def _solution(self, index: int, given: SolutionInput) -> SolutionScore:
        steps = given.steps if given.steps is not None else split_steps(given.text or "")
        error = self.error_of("\n\n".join(steps))
        scores = [] if error else [self.score_of(step) for step in steps] + [0.5] * self.extra_steps
        outcome = scores[-1] if scores and self.kind != "prm" else None
        shown = [] if self.kind == "orm" else scores
        return SolutionScore(
            index=index,
            steps=[StepScore(score=p) for p in shown],
            outcome=outcome,
            aggregate=Aggregates.of(shown, outcome),
            first_error=first_error(shown),
            tokens=TOKENS_OF_A_SOLUTION,
            cached=False,
            flags=[],
            error=error,
        )


class InlineGrader:
    """A `Grader` that compares where it stands, without computer algebra."""

    async def keys(self, answers: Sequence[str]) -> list[str]:
        return [canonical_key(answer) for answer in answers]

    async def grade(self, pairs: Sequence[tuple[str, str]], mode: Mode) -> list[Verdict]:
        undecided = Verdict(False, Method.SYMBOLIC)
        return [quick_verdict(gold, pred, mode) or undecided for gold, pred in pairs]


def unreachable() -> UpstreamUnavailable:
    """What a client raises when nobody listens."""
    return UpstreamUnavailable("the service cannot be reached")

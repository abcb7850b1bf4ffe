"""LocalVerifier: a `Verifier` over a reward model in this process. Encodes, batches, checks, answers in order."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from services.core.aggregation import first_error, is_probability
from services.core.contracts import (
    Aggregates,
    ItemError,
    ScoreRequest,
    ScoreResponse,
    ScoreTimings,
    ScoreUsage,
    SolutionInput,
    SolutionScore,
    StepScore,
    VerifierInfo,
)
from services.core.errors import ContextLengthExceeded, E2HError, InvalidRequest, ItemTooLarge, ModelNotFound, NotReady
from services.core.ports import KnownScores, ScoreCache
from services.core.steps import split_steps
from services.verifier.batcher import Batcher, Scored
from services.verifier.families.base import Encoded
from services.verifier.loading import load_reward_model
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RewardModel
from services.verifier.recall import Recall, ScoreKeys, model_digest, nothing_known
from services.verifier.selftest import self_test
from services.verifier.settings import VerifierSettings


class LocalVerifier:
    """Serves one reward model to any number of concurrent callers; what `cache` knows is not scored again."""

    def __init__(self, settings: VerifierSettings, metrics: VerifierMetrics, cache: ScoreCache | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._cache = cache
        self._recall: Recall | None = None
        self._model: RewardModel | None = None
        self._batcher: Batcher | None = None

    async def start(self) -> None:
        """Load the model and hold it to its self-test. Raises `ModelLoadError`."""
        self._model = await asyncio.to_thread(_load_checked, self._settings)
        if self._cache is not None:
            self._recall = Recall(self._cache, await asyncio.to_thread(_score_keys, self._settings, self._model))
        self._batcher = Batcher(
            self._model,
            self._metrics,
            max_batch_tokens=self._settings.batch_tokens(self._model.device_type),
            max_queue_tokens=self._settings.max_queue_tokens,
            gather_s=self._settings.gather_ms / 1000,
            max_wait_s=self._settings.max_queue_wait_s,
        )
        self._batcher.start()

    async def close(self) -> None:
        """Stop scoring; callers who still wait get `NotReady`."""
        if self._batcher is not None:
            await self._batcher.close()
        if self._cache is not None:
            await self._cache.close()

    async def info(self) -> VerifierInfo:
        return self._loaded()[0].info

    async def ready(self) -> str | None:
        if self._batcher is None:
            return "the verifier's model is not loaded"
        if not self._batcher.alive:
            return "the verifier's batch loop died"
        return "the verifier's last batches all failed" if self._batcher.failing else None

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        model, batcher = self._loaded()
        if request.model not in (None, model.info.id):
            raise ModelNotFound("this model is not served here", param="model")
        if self._recall is None:  # what a cache knows needs no room
            batcher.require_room()
        began = time.perf_counter()
        # In a thread, ahead of the device: long solutions take their time to tokenise.
        encoded = await asyncio.to_thread(_encode_all, model, request)
        tokenized = time.perf_counter()
        fitting = [item for item in encoded if isinstance(item, Encoded)]
        recalled = nothing_known(fitting) if self._recall is None else await self._recall.look_up(fitting)
        scored = await batcher.score(recalled.missing, group=request.problem)
        new = [_known(one) for one in scored]
        if self._recall is not None:
            await self._recall.keep(recalled, new)
        answers = iter(recalled.completed(new))
        solutions = [
            _solution(place, item, *next(answers)) if isinstance(item, Encoded) else _failed(place, item)
            for place, item in enumerate(encoded)
        ]
        self._count(solutions)
        ran = [one for one in scored if isinstance(one, Scored)]
        return _response(model, solutions, ran), _timings(tokenized - began, ran)

    def _count(self, solutions: Sequence[SolutionScore]) -> None:
        for solution in solutions:
            self._metrics.solution("scored" if solution.error is None else solution.error.code)

    def _loaded(self) -> tuple[RewardModel, Batcher]:
        if self._model is None or self._batcher is None:
            raise NotReady("the verifier's model is not loaded")
        return self._model, self._batcher


def _load_checked(settings: VerifierSettings) -> RewardModel:
    model = load_reward_model(settings)
    self_test(model)
    return model


def _score_keys(settings: VerifierSettings, model: RewardModel) -> ScoreKeys:
    return ScoreKeys(
        model=model_digest(Path(settings.model).expanduser()),
        family=model.family.name,
        version=model.family.version,
        dtype=str(next(model.body.parameters()).dtype),
    )


def _encode_all(model: RewardModel, request: ScoreRequest) -> list[Encoded | E2HError]:
    return [_encode(model, request.problem, place, solution) for place, solution in enumerate(request.solutions)]


def _encode(model: RewardModel, problem: str, place: int, solution: SolutionInput) -> Encoded | E2HError:
    steps = solution.steps if solution.steps is not None else split_steps(solution.text or "")
    try:
        encoded = model.family.encode(problem, steps)
    except InvalidRequest as error:
        return error
    if len(encoded.ids) > model.context_length:
        return ContextLengthExceeded(
            f"solution {place} with its problem has {len(encoded.ids)} tokens; the verifier's context is "
            f"{model.context_length}"
        )
    return encoded


def _known(scored: Scored | ItemTooLarge) -> KnownScores | ItemTooLarge:
    return scored if isinstance(scored, ItemTooLarge) else KnownScores(scored.raw.steps, scored.raw.outcome)


def _solution(place: int, encoded: Encoded, scores: KnownScores | ItemTooLarge, cached: bool) -> SolutionScore:
    return _failed(place, scores) if isinstance(scores, ItemTooLarge) else _scored(place, encoded, scores, cached)


def _scored(place: int, encoded: Encoded, scores: KnownScores, cached: bool) -> SolutionScore:
    steps, outcome = scores.steps, scores.outcome
    if not all(is_probability(p) for p in (*steps, *([] if outcome is None else [outcome]))):
        return _failed(
            place, InvalidRequest("the model gave a score that is no probability", code="non_finite"), encoded
        )
    return SolutionScore(
        index=place,
        steps=[StepScore(score=p) for p in steps],
        outcome=outcome,
        aggregate=Aggregates.of(steps, outcome),
        first_error=first_error(steps),
        tokens=len(encoded.ids),
        cached=cached,
        flags=list(encoded.flags),
        error=None,
    )


def _failed(place: int, error: E2HError, encoded: Encoded | None = None) -> SolutionScore:
    return SolutionScore(
        index=place,
        steps=[],
        outcome=None,
        aggregate=Aggregates.of([], None),
        first_error=None,
        tokens=len(encoded.ids) if encoded else 0,
        cached=False,
        flags=list(encoded.flags) if encoded else [],
        error=ItemError(code=error.code, message=error.message),
    )


def _response(model: RewardModel, solutions: list[SolutionScore], scored: Sequence[Scored]) -> ScoreResponse:
    tokens = sum(s.tokens for s in solutions)
    computed = sum(s.raw.computed for s in scored)
    return ScoreResponse(
        id=f"score-{uuid.uuid4().hex}",
        model=model.info.id,
        kind=model.info.kind,
        solutions=solutions,
        usage=ScoreUsage(tokens=tokens, tokens_computed=computed, tokens_cached=tokens - computed),
    )


def _timings(tokenize_s: float, scored: Sequence[Scored]) -> ScoreTimings:
    """The longest of each part: what the caller waited for. Batch figures of the largest batch."""
    return ScoreTimings(
        tokenize_ms=tokenize_s * 1000,
        queue_ms=max((s.queue_s for s in scored), default=0.0) * 1000,
        inference_ms=max((s.inference_s for s in scored), default=0.0) * 1000,
        batch_tokens=max((s.batch_tokens for s in scored), default=0),
        batch_solutions=max((s.batch_solutions for s in scored), default=0),
    )

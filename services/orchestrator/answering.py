"""From a finished run and its vote to the response. Pure translation."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from services.core.contracts import (
    ModelPair,
    SolveCandidate,
    SolveClass,
    SolveEvent,
    SolveResponse,
    SolveTimings,
    SolveUsage,
)
from services.core.errors import InternalError
from services.core.voting import AnswerClass, Selection
from services.orchestrator.run import Run, Sample


async def answer_of(events: AsyncGenerator[SolveEvent, None]) -> SolveResponse:
    """The last event of a solve, whose others are left out; leaving it closes them."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, SolveResponse):
                return event
    raise InternalError("internal error; the log has the request id")


def build_response(run: Run, selection: Selection, correct: bool | None, response_id: str) -> SolveResponse:
    """The whole evidence of `run`; `correct` as graded against the request's reference."""
    request, samples = run.request, run.samples
    verified = run.elapsed_ms()
    winner = next((s for s in samples if s.index == selection.index), None)
    candidates = [_candidate(run, sample) for sample in samples]
    classes = solve_classes(selection.classes)
    total = run.elapsed_ms()
    return SolveResponse(
        id=response_id,
        model=ModelPair(generator=run.generator, verifier=run.verifier),
        problem=request.problem,
        answer=selection.answer,
        solution=None if winner is None else winner.completion.text,
        strategy=request.strategy,
        aggregation=run.aggregation,
        margin=selection.margin,
        correct=correct,
        classes=classes,
        candidates=candidates,
        partial=run.partial,
        stopped_early=run.stopped_early,
        used=len(run.decided),
        degraded="majority" if run.degraded else None,
        usage=SolveUsage(
            prompt_tokens=run.prompt_tokens,
            completion_tokens=run.completion_tokens,
            verifier_tokens=run.verifier_tokens,
            verifier_tokens_computed=run.verifier_tokens_computed,
        ),
        timings_ms=SolveTimings(
            generate=run.ended_ms.get("generate", verified),
            verify=run.ended_ms.get("verify", verified),
            vote=total - run.ended_ms.get("verify", verified),
            total=total,
        ),
    )


def solve_classes(classes: Sequence[AnswerClass]) -> list[SolveClass]:
    """Answer classes as they cross the wire, winner first."""
    return [
        SolveClass(answer=c.answer, members=list(c.members), votes=c.votes, weight=c.weight, best_score=c.best_score)
        for c in classes
    ]


def _candidate(run: Run, sample: Sample) -> SolveCandidate:
    scored = sample.scored
    return SolveCandidate(
        index=sample.index,
        text=sample.completion.text,
        answer=sample.answer,
        steps=sample.shown_steps(),
        outcome=scored.outcome if scored else None,
        score=sample.value(run.aggregation),
        first_error=scored.first_error if scored else None,
        finish_reason=sample.completion.finish_reason,
        tokens=sample.completion.tokens,
        seed=sample.completion.seed,
        excluded=_excluded(run, sample),
    )


def _excluded(run: Run, sample: Sample) -> str | None:
    reason = sample.candidate(run.voting_aggregation).exclusion(run.voting_strategy)
    if reason is not None:
        return reason
    first = run.first_twin(sample)
    return None if first == sample.index else f"duplicate_of:{first}"

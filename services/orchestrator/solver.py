"""The story of one request: sample, score each sample as it arrives, vote, answer. Knows ports, no clients."""

import asyncio
import math
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing

import structlog

from services.core.aggregation import Aggregation, aggregations_of
from services.core.contracts import (
    Completion,
    GenerateDone,
    GenerateRequest,
    Sampling,
    ScoreRequest,
    ScoreResponse,
    SolutionInput,
    SolutionScore,
    SolveRequest,
    SolveResponse,
    VerifierInfo,
)
from services.core.equivalence import Mode
from services.core.errors import (
    DeadlineExceeded,
    Draining,
    E2HError,
    InternalError,
    InvalidRequest,
    NotReady,
    Overloaded,
    UpstreamContract,
    UpstreamUnavailable,
)
from services.core.ports import Generator, Grader, Verifier
from services.core.steps import split_steps
from services.core.voting import select
from services.orchestrator.answering import build_response
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.run import Run, Sample
from services.orchestrator.voting import keys_of
from services.runtime import context

_log = structlog.get_logger("e2h.solver")
# What on_verifier_failure="majority" forgives: the verifier's troubles, not the caller's mistakes.
_VERIFIER_TROUBLES = (NotReady, Draining, Overloaded, UpstreamUnavailable, UpstreamContract, InternalError)
# What ends the sampling and leaves the samples that have come.
_GENERATOR_TROUBLES = (NotReady, Draining, Overloaded, UpstreamUnavailable, UpstreamContract, DeadlineExceeded)
# Of the time budget, what is kept for grading, voting and answering: a tenth, and no more than this.
_VOTE_S = 0.25

Observer = Callable[[Run, Sample], None]


class Solver:
    """Answers `SolveRequest`s with any generator, verifier and grader."""

    def __init__(self, generator: Generator, verifier: Verifier, grader: Grader, metrics: SolveMetrics) -> None:
        self._generator = generator
        self._verifier = verifier
        self._grader = grader
        self._metrics = metrics

    async def solve(self, request: SolveRequest, observe: Observer | None = None) -> SolveResponse:
        """Sample n solutions, score them while others are still being sampled, choose.

        `observe` is called in the event loop when a sample arrives and again when it is scored. When the generator is
        lost or the time budget ends midway, the answer is made of what is there, and is partial. Raises what the ports
        raise; `DeadlineExceeded` when the budget ends before anything is scored; `InvalidRequest` when the verifier
        cannot give the aggregation that is asked for.
        """
        began = time.perf_counter()
        with _kept_for_the_vote():
            generator = await self._generator.info()
            run = Run(request=request, generator=generator.id, began=began, observe=observe)
            await self._meet_verifier(run)
            await self._sample_and_score(run)
        candidates = [sample.candidate(run.voting_aggregation) for sample in run.samples]
        selection = select(candidates, run.voting_strategy, await keys_of(candidates, self._grader))
        correct = await self._is_correct(selection.answer, request.reference)
        response = build_response(run, selection, correct, f"solve-{uuid.uuid4().hex}")
        self._metrics.observe(response)
        return response if request.include_candidates else response.model_copy(update={"candidates": []})

    async def default_aggregation(self) -> Aggregation:
        """The aggregation of the verifier's family."""
        return (await self._verifier.info()).default_aggregation

    async def _is_correct(self, answer: str | None, reference: str | None) -> bool | None:
        """Whether the answer is the reference, which forgives units and the like; None without a reference."""
        if reference is None or answer is None:
            return None if reference is None else False
        (verdict,) = await self._grader.grade([(reference, answer)], Mode.REFERENCE)
        return verdict.equal

    async def _meet_verifier(self, run: Run) -> None:
        if not run.request.strategy.needs_scores:
            return
        try:
            info = await self._verifier.info()
        except _VERIFIER_TROUBLES as error:
            self._degrade(run, error)
            return
        run.verifier = info.id
        run.aggregation = run.request.aggregation or info.default_aggregation
        _check_aggregation(run.aggregation, info)

    async def _sample_and_score(self, run: Run) -> None:
        try:
            # The first score that fails ends the sampling too: its answer could no longer come.
            async with asyncio.timeout(_budget_s()), asyncio.TaskGroup() as scoring:
                await self._sample(run, scoring)
                run.mark("generate")
        except TimeoutError:
            run.cut_short(_out_of_time())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        run.mark("verify")
        if run.cut is not None and not run.answerable:
            raise run.cut

    async def _sample(self, run: Run, scoring: asyncio.TaskGroup) -> None:
        request = run.request
        sampling = Sampling(**request.sampling.model_dump())
        generation = GenerateRequest(problem=request.problem, n=request.n, sampling=sampling)
        try:
            async with aclosing(self._generator.generate(generation)) as events:
                async for event in events:
                    if isinstance(event, GenerateDone):
                        run.prompt_tokens = event.usage.prompt_tokens
                        return
                    self._take(run, event, scoring)
            raise UpstreamContract("the generator ended without its last event")
        except _GENERATOR_TROUBLES as error:
            if not run.arrived:
                raise
            _log.warning("generator failed midway", sampled=len(run.samples), n=request.n, code=error.code)
            run.cut_short(error)

    def _take(self, run: Run, completion: Completion, scoring: asyncio.TaskGroup) -> None:
        sample = Sample(completion, split_steps(completion.text))
        original = run.add(sample)
        if original is sample and run.scores_wanted and sample.steps:
            scoring.create_task(self._score(run, sample))

    async def _score(self, run: Run, sample: Sample) -> None:
        request = ScoreRequest(problem=run.request.problem, solutions=[SolutionInput(text=sample.completion.text)])
        try:
            response, _ = await self._verifier.score(request)
            sample.score = _checked(response, sample)
        except DeadlineExceeded as error:
            run.cut_short(error)
            return
        except _VERIFIER_TROUBLES as error:
            self._degrade(run, error)
            return
        run.verifier_tokens += response.usage.tokens
        run.verifier_tokens_computed += response.usage.tokens_computed
        run.notify(sample)

    def _degrade(self, run: Run, error: E2HError) -> None:
        if run.request.on_verifier_failure == "fail":
            raise error
        _log.warning("verifier failed; voting by majority", code=error.code)
        run.degraded = True


def _kept_for_the_vote() -> AbstractContextManager[None]:
    """Within it, sampling and scoring have a little less time than the caller gave. Raises `DeadlineExceeded`."""
    left = context.time_left()
    if left <= 0:
        raise _out_of_time()
    return context.reserving(min(_VOTE_S, left / 10))


def _budget_s() -> float | None:
    return None if math.isinf(context.time_left()) else context.time_left()


def _out_of_time() -> DeadlineExceeded:
    return DeadlineExceeded("the request's time budget ran out")


def _checked(response: ScoreResponse, sample: Sample) -> SolutionScore:
    """The other side's word, checked where it is received: one solution, and one score a step if it gives any."""
    if len(response.solutions) != 1:
        raise UpstreamContract("the verifier gave a wrong number of solutions")
    score = response.solutions[0]
    expected = 0 if response.kind == "orm" else len(sample.steps)
    if score.error is None and len(score.steps) != expected:
        raise UpstreamContract("the verifier gave a wrong number of step scores")
    return score


def _check_aggregation(aggregation: Aggregation, info: VerifierInfo) -> None:
    given = aggregations_of(info.kind)
    if aggregation not in given:
        raise InvalidRequest(
            f"the verifier is a {info.kind}; it gives {', '.join(sorted(given))}",
            param="aggregation",
            code="unsupported_parameter",
        )

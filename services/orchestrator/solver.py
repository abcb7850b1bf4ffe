"""The story of one request: sample, score each sample as it arrives, vote, answer. Knows ports, no clients."""

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing

from services.core.aggregation import Aggregation, aggregations_of
from services.core.contracts import (
    Completion,
    GenerateDone,
    GenerateRequest,
    Message,
    Sampling,
    SolveEvent,
    SolveRequest,
    SolveResponse,
    VerifierInfo,
    VoteEvent,
)
from services.core.equivalence import Mode
from services.core.errors import DeadlineExceeded, InvalidRequest, Overloaded, UpstreamContract
from services.core.ports import Generator, Grader, Verifier
from services.core.steps import split_steps
from services.core.stopping import may_stop
from services.core.voting import Selection, select
from services.orchestrator.answering import answer_of, build_response
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.run import Run, Sample
from services.orchestrator.scoring import MOST_REQUESTS, score_request, taken
from services.orchestrator.search import Search
from services.orchestrator.troubles import (
    GENERATOR_TROUBLES,
    VERIFIER_TROUBLES,
    checked,
    cut_by_generator,
    degrade,
    out_of_time,
)
from services.orchestrator.voting import keys_of
from services.runtime import context

# Of the time budget, what is kept for grading, voting and answering: a tenth, and no more than this.
_VOTE_S = 0.25


class _Settled(Exception):
    """The vote is decided: ends the samples and scores that still run."""


class Solver:
    """Answers `SolveRequest`s with any generator, verifier and grader."""

    def __init__(self, generator: Generator, verifier: Verifier, grader: Grader, metrics: SolveMetrics) -> None:
        self._generator = generator
        self._verifier = verifier
        self._grader = grader
        self._metrics = metrics

    async def events(self, request: SolveRequest, context: Sequence[Message] = ()) -> AsyncGenerator[SolveEvent, None]:
        """Sample n solutions, score them while others are still being sampled, choose; the last event is the answer.

        A `CandidateEvent` as each sample comes, a `ScoreEvent` as each is scored, and where the request asks for a
        stream or an early stop a `VoteEvent` as the vote changes. `context` are the turns of a conversation before
        the problem. Closing the iterator, or cancelling its consumer, stops every sample and every score.

        When the generator is lost or the time budget ends midway, the answer is made of what is there, and is partial.
        Raises what the ports raise; `DeadlineExceeded` when the budget ends before anything is scored;
        `InvalidRequest` when the verifier cannot give the aggregation that is asked for.
        """
        run = Run(request=request, generator="", began=time.perf_counter(), context=context)
        working = asyncio.create_task(self._work(run))
        working.add_done_callback(lambda _: run.events.put_nowait(None))
        try:
            while (event := await run.events.get()) is not None:
                yield event
            yield working.result()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def solve(self, request: SolveRequest, context: Sequence[Message] = ()) -> SolveResponse:
        """The last of the `events`."""
        return await answer_of(self.events(request, context))

    async def default_aggregation(self) -> Aggregation:
        """The aggregation of the verifier's family."""
        return (await self._verifier.info()).default_aggregation

    async def _work(self, run: Run) -> SolveResponse:
        with _kept_for_the_vote():
            run.generator = (await self._generator.info()).id
            await self._meet_verifier(run)
            await self._sample_and_score(run)
        selection = await self._choose(run)
        correct = await self._is_correct(selection.answer, run.request.reference)
        response = build_response(run, selection, correct, f"solve-{uuid.uuid4().hex}")
        self._metrics.observe(response, run.request.n)
        return response if run.request.include_candidates else response.model_copy(update={"candidates": []})

    async def _meet_verifier(self, run: Run) -> None:
        if not run.request.strategy.needs_scores:
            return
        try:
            info = await self._verifier.info()
        except VERIFIER_TROUBLES as error:
            degrade(run, error)
            return
        run.verifier = info.id
        run.aggregation = run.request.aggregation or info.default_aggregation
        if run.request.strategy.searches:
            _check_steps_are_scored(run.aggregation, info)
        _check_aggregation(run.aggregation, info)

    async def _sample_and_score(self, run: Run) -> None:
        try:
            # The first score that fails ends the sampling too: its answer could no longer come. So does a vote that
            # is decided.
            async with asyncio.timeout(_budget_s()), asyncio.TaskGroup() as work:
                await (self._search(run, work) if run.request.strategy.searches else self._sample(run, work))
                run.mark("generate")
        except TimeoutError:
            run.cut_short(out_of_time())
        except BaseExceptionGroup as failures:
            if not run.stopped_early:
                raise failures.exceptions[0] from None
            run.mark("generate")
        run.mark("verify")
        if run.cut is not None and not run.answerable:
            raise run.cut

    async def _sample(self, run: Run, work: asyncio.TaskGroup) -> None:
        request = run.request
        generation = GenerateRequest(
            problem=request.problem,
            messages=list(run.context) or None,
            n=request.n,
            sampling=Sampling(**request.sampling.model_dump()),
        )
        try:
            async with aclosing(self._generator.generate(generation)) as events:
                async for event in events:
                    if isinstance(event, GenerateDone):
                        run.prompt_tokens = event.usage.prompt_tokens
                        return
                    self._take(run, event, work)
            raise UpstreamContract("the generator ended without its last event")
        except GENERATOR_TROUBLES as error:
            if not run.arrived:
                raise
            cut_by_generator(run, error)

    async def _search(self, run: Run, work: asyncio.TaskGroup) -> None:
        search = Search(run, self._generator, self._verifier, self._metrics.searches, lambda: self._count(run, work))
        await search.to_the_end()

    def _take(self, run: Run, completion: Completion, work: asyncio.TaskGroup) -> None:
        sample = Sample(completion, split_steps(completion.text))
        run.prompt_tokens += completion.prompt_tokens
        run.completion_tokens += completion.tokens
        original = run.add(sample)
        if original is sample and run.scores_wanted and sample.steps:
            run.unscored.append(sample)
            if run.scoring < MOST_REQUESTS:
                run.scoring += 1
                work.create_task(self._score(run, work))
        if run.is_decided(sample):
            self._count(run, work)

    async def _score(self, run: Run, work: asyncio.TaskGroup) -> None:
        """Have scored what has come, and what comes meanwhile."""
        try:
            while run.unscored and run.scores_wanted and run.cut is None:
                await self._score_together(run, taken(run.unscored), work)
        finally:
            run.scoring -= 1

    async def _score_together(self, run: Run, samples: Sequence[Sample], work: asyncio.TaskGroup) -> None:
        try:
            response, _ = await self._verifier.score(score_request(run.request.problem, samples))
            scores = checked(response, [len(sample.steps) for sample in samples])
        except DeadlineExceeded as error:
            run.cut_short(error)
            return
        except VERIFIER_TROUBLES as error:
            degrade(run, error)
        else:
            run.verifier_tokens += response.usage.tokens
            run.verifier_tokens_computed += response.usage.tokens_computed
            for sample, score in zip(samples, scores, strict=True):
                run.judge(sample, score)
        self._count(run, work)

    def _count(self, run: Run, work: asyncio.TaskGroup) -> None:
        """Have the vote taken again, if anyone wants it; changes that come during a vote are in the next one."""
        run.recount = True
        if run.votes_on_the_way and not run.counting:
            run.counting = True
            work.create_task(self._vote_on_the_way(run))

    async def _vote_on_the_way(self, run: Run) -> None:
        rule, n = run.request.stop_rule, run.request.n
        try:
            while run.recount:
                run.recount = False
                decided = run.decided
                try:
                    selection = await self._selection(run)
                except Overloaded:
                    continue  # the vote that counts is the last one
                run.tell(VoteEvent(answer=selection.answer, margin=selection.margin, n=selection.voters))
                settled = rule is not None and may_stop(rule, selection, n, decided)
                if settled and len(run.decided) < n:  # the last may have come during the vote
                    run.stopped_early = True
                    raise _Settled
        finally:
            run.counting = False

    async def _choose(self, run: Run) -> Selection:
        selection = await self._selection(run)
        unscored = selection.winner is None and run.scores_wanted and any(s.answer is not None for s in run.arrived)
        if not unscored or run.request.on_verifier_failure == "fail":
            return selection
        degrade(run, UpstreamContract("the verifier scored no solution"))
        return await self._selection(run)

    async def _selection(self, run: Run) -> Selection:
        """The vote among the samples so far."""
        candidates, strategy = run.candidates(), run.voting_strategy
        return select(candidates, strategy, await keys_of(candidates, self._grader, run.keys))

    async def _is_correct(self, answer: str | None, reference: str | None) -> bool | None:
        """Whether the answer is the reference, which forgives units and the like; None without a reference."""
        if reference is None or answer is None:
            return None if reference is None else False
        (verdict,) = await self._grader.grade([(reference, answer)], Mode.REFERENCE)
        return verdict.equal


def _kept_for_the_vote() -> AbstractContextManager[None]:
    """Within it, sampling and scoring have a little less time than the caller gave. Raises `DeadlineExceeded`."""
    left = context.time_left()
    if left <= 0:
        raise out_of_time()
    return context.reserving(min(_VOTE_S, left / 10))


def _budget_s() -> float | None:
    return None if math.isinf(context.time_left()) else context.time_left()


def _check_aggregation(aggregation: Aggregation, info: VerifierInfo) -> None:
    given = aggregations_of(info.kind)
    if aggregation not in given:
        raise InvalidRequest(
            f"the verifier is a {info.kind}; it gives {', '.join(sorted(given))}",
            param="aggregation",
            code="unsupported_parameter",
        )


def _check_steps_are_scored(aggregation: Aggregation, info: VerifierInfo) -> None:
    if info.kind == "orm":
        raise InvalidRequest(
            "the verifier is an orm, which scores whole solutions; beam and dvts search by the scores of steps",
            param="strategy",
            code="unsupported_parameter",
        )
    if aggregation is Aggregation.OUTCOME:
        raise InvalidRequest(
            "the verifier's default is outcome, the score of a whole solution; name another for a search",
            param="aggregation",
            code="unsupported_parameter",
        )

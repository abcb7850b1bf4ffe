"""A step-level search: draw continuations, score them, keep the best, again. Knows ports, no clients; `tree` decides.

All trees go on step by step together: every partial solution of a step is drawn at the same time, and scored before the
next step begins. The verifier keeps what it has read of a problem, so that each step costs it the new tokens only.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from services.core.contracts import (
    Completion,
    FinishReason,
    GenerateDone,
    GenerateRequest,
    Sampling,
)
from services.core.errors import InvalidRequest, UpstreamContract
from services.core.ports import Generator, Verifier
from services.core.seeds import MAX_SEED, derive_branch_seed
from services.core.steps import split_steps
from services.orchestrator.run import Run, Sample
from services.orchestrator.search.metrics import SearchMetrics
from services.orchestrator.search.scoring import Scoring
from services.orchestrator.search.tree import BLANK_LINE, Branch, Tree, merged, plant
from services.orchestrator.troubles import GENERATOR_TROUBLES, cut_by_generator

# The continuations of one parent, by index; of a step, by the tree and the place of the parent.
_Grown = dict[int, Branch]
_Place = tuple[int, int]


class Search:
    """One search under way, which gathers its solutions in `run`; `told` is called when there are new ones."""

    def __init__(
        self, run: Run, generator: Generator, verifier: Verifier, metrics: SearchMetrics, told: Callable[[], None]
    ) -> None:
        self._run = run
        self._generator = generator
        self._metrics = metrics
        self._told = told
        request = run.request
        self._shape = request.shape
        self._strategy = request.strategy.value
        self._seed = request.sampling.seed if request.sampling.seed is not None else secrets.randbelow(MAX_SEED)
        self._trees = plant(request.strategy, request.shape)
        self._step: dict[_Place, _Grown] = {}
        self._scoring = Scoring(run, verifier)
        self._levels = 0

    async def to_the_end(self) -> None:
        """Search until every tree is over, or at its last step, or the run is cut short.

        Solutions come to the run as they are finished; at the end, however it ends, so do the partial ones that were
        still in the search. Raises what the ports raise, apart from what the run can be cut short by.
        """
        reason: FinishReason = "cancelled"
        try:
            while self._levels < self._shape.max_steps and any(tree.beam for tree in self._trees):
                await self._draw()
                await self._scoring.of_step(self._branches())
                if self._run.cut is not None:
                    return
                self._take()
            reason = "length"
        finally:
            self._leave(reason)

    # --- drawing ------------------------------------------------------------------------------------------------------

    async def _draw(self) -> None:
        """The continuations of one step, of all parents in all trees at the same time."""
        self._levels += 1
        try:
            async with asyncio.TaskGroup() as work:
                for tree in self._trees:
                    for place, parent, n in tree.shares(self._shape.expand):
                        work.create_task(self._expand(tree.number, place, parent, n))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        self._run.ended_ms["generate"] = self._run.elapsed_ms()

    async def _expand(self, tree: int, place: int, parent: Branch, n: int) -> None:
        grown = self._step.setdefault((tree, place), {})
        path = (tree, self._levels, place)
        if not await self._continue(grown, parent, n, path):
            grown[0] = replace(parent, finish_reason="length")
            return
        await self._answer(grown, path)

    async def _answer(self, grown: _Grown, path: Sequence[int]) -> None:
        """Behind the header of an answer, draw the answer too: for every continuation that came there, one."""
        waiting: dict[str, list[int]] = {}
        for index, branch in sorted(grown.items()):
            if branch.awaits_answer:
                waiting.setdefault(branch.text, []).append(index)
        for group, indices in enumerate(waiting.values()):
            answered: _Grown = {}
            room = await self._continue(answered, grown[indices[0]], len(indices), (*path, group))
            for answer, index in enumerate(indices):
                if answer in answered:
                    grown[index] = answered[answer]
                elif not room:
                    grown[index] = replace(grown[index], finish_reason="length")

    async def _continue(self, grown: _Grown, parent: Branch, n: int, path: Sequence[int]) -> bool:
        """Draw one more step of `parent`, n times, into `grown`; False when there is no room for it."""
        left = self._run.request.sampling.max_tokens - parent.tokens
        if left < 1:
            return False
        try:
            await self._sample(grown, parent, self._request(parent, n, left, path))
        except GENERATOR_TROUBLES as error:
            cut_by_generator(self._run, error)
        except InvalidRequest as error:
            if error.param == "prefix":
                raise InvalidRequest(error.message, param="strategy", code=error.code) from error
            if not parent.text:
                raise
            return False  # the problem was taken before: what does not fit the context is the solution so far
        return True

    async def _sample(self, grown: _Grown, parent: Branch, request: GenerateRequest) -> None:
        run = self._run
        async with aclosing(self._generator.generate(request)) as events:
            async for event in events:
                if isinstance(event, GenerateDone):
                    return
                run.completion_tokens += event.tokens
                run.prompt_tokens += event.prompt_tokens
                grown[event.index] = parent.grown(event)
        raise UpstreamContract("the generator ended without its last event")

    def _request(self, parent: Branch, n: int, max_tokens: int, path: Sequence[int]) -> GenerateRequest:
        given = self._run.request.sampling.model_dump()
        seed = derive_branch_seed(self._seed, *path)
        return GenerateRequest(
            problem=self._run.request.problem,
            messages=list(self._run.context) or None,
            prefix=parent.prefix,
            n=n,
            sampling=Sampling(**{**given, "max_tokens": max_tokens, "seed": seed, "stop": [BLANK_LINE]}),
        )

    # --- keeping ------------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Hand on what is finished, keep the best of the rest."""
        scored, before = self._run.scores_wanted, len(self._run.arrived)
        for tree in self._trees:
            drawn = self._branches(tree.number)
            for branch in drawn:
                if branch.open and scored and branch.value is None:
                    branch.finish_reason = "length"  # the verifier cannot read on
                if branch.finish_reason is not None:
                    self._hand_on(branch, branch.finish_reason)
            distinct = merged(drawn)
            pruned = tree.take(distinct, scored=scored)
            self._count(tree, drawn, distinct, pruned)
        self._step.clear()
        self._scoring.keep([branch for tree in self._trees for branch in tree.beam])
        if len(self._run.arrived) > before:
            self._told()

    def _leave(self, reason: FinishReason) -> None:
        """Hand on what the last step finished, if it was interrupted, and what is left unfinished, for `reason`."""
        for branch in self._branches():
            if branch.finish_reason is not None:
                self._hand_on(branch, branch.finish_reason)
        self._step.clear()
        for tree in self._trees:
            for branch in tree.beam:
                if branch.text:
                    self._hand_on(branch, reason)
        self._metrics.searched(self._strategy, self._levels)

    def _hand_on(self, branch: Branch, reason: FinishReason) -> None:
        """To the run, as its next candidate."""
        run = self._run
        completion = Completion(
            index=len(run.arrived),
            text=branch.text,
            tokens=branch.tokens,
            finish_reason=reason,
            logprob=None,
            seed=branch.seed,
        )
        sample = Sample(completion, split_steps(branch.text))
        if run.add(sample) is sample and branch.score is not None:
            run.judge(sample, branch.score)

    def _branches(self, tree: int | None = None) -> list[Branch]:
        """Those of the step under way, in an order that does not depend on which came first."""
        places = sorted(place for place in self._step if tree in (None, place[0]))
        return [branch for place in places for _, branch in sorted(self._step[place].items())]

    def _count(self, tree: Tree, drawn: Sequence[Branch], distinct: Sequence[Branch], pruned: Sequence[Branch]) -> None:
        count = self._metrics.count
        count(self._strategy, "kept", len(tree.beam))
        count(self._strategy, "finished", sum(b.finished for b in distinct))
        count(self._strategy, "cut", sum(not b.open and not b.finished for b in distinct))
        count(self._strategy, "duplicate", len(drawn) - len(distinct))
        count(self._strategy, "pruned", len(pruned))

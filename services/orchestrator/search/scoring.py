"""The scores of a search's partial solutions: each text once, whatever tree it stands in. Knows the verifier's port."""

import asyncio
from collections.abc import Sequence

from services.core.contracts import ScoreRequest, SolutionInput, SolutionScore
from services.core.errors import DeadlineExceeded, UpstreamContract
from services.core.ports import Verifier
from services.core.steps import split_steps
from services.orchestrator.run import Run, aggregated
from services.orchestrator.search.tree import Branch
from services.orchestrator.troubles import VERIFIER_TROUBLES, checked, degrade

# Solutions in one request to the verifier: its body is bounded, and a step may have a thousand long continuations.
_SCORED_TOGETHER = 64


class Scoring:
    """Gives branches their scores; remembers those of the branches that go on."""

    def __init__(self, run: Run, verifier: Verifier) -> None:
        self._run = run
        self._verifier = verifier
        self._known: dict[str, SolutionScore] = {}

    async def of_step(self, branches: Sequence[Branch]) -> None:
        """Score what a step drew; of a run that was cut, what is finished alone, as nothing else can still count.

        Trouble of the verifier degrades the run or is raised, as the request says; the end of the time cuts the run.
        """
        run = self._run
        counting = [b for b in branches if run.cut is None or not b.open]
        if run.scores_wanted:
            await self._ask(dict.fromkeys(b.text for b in counting if b.text and b.text not in self._known))
        for branch in counting:
            branch.score = self._known.get(branch.text)
            branch.value = aggregated(branch.score, run.aggregation)
        if run.scores_wanted and run.cut is None and all(b.value is None for b in counting):
            self._nothing_scored()

    def keep(self, branches: Sequence[Branch]) -> None:
        """Forget all scores but those of `branches`."""
        self._known = {b.text: b.score for b in branches if b.score is not None}

    async def _ask(self, texts: dict[str, None]) -> None:
        new = list(texts)
        try:
            async with asyncio.TaskGroup() as work:
                for first in range(0, len(new), _SCORED_TOGETHER):
                    work.create_task(self._score(new[first : first + _SCORED_TOGETHER]))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _score(self, texts: Sequence[str]) -> None:
        run = self._run
        request = ScoreRequest(problem=run.request.problem, solutions=[SolutionInput(text=text) for text in texts])
        try:
            response, _ = await self._verifier.score(request)
            scores = checked(response, [len(split_steps(text)) for text in texts])
        except DeadlineExceeded as error:
            run.cut_short(error)
        except VERIFIER_TROUBLES as error:
            degrade(run, error)
        else:
            run.verifier_tokens += response.usage.tokens
            run.verifier_tokens_computed += response.usage.tokens_computed
            self._known.update(zip(texts, scores, strict=True))

    def _nothing_scored(self) -> None:
        """Under `on_verifier_failure: majority` go on without scores, as long as nothing has one; else end here."""
        run = self._run
        if run.request.on_verifier_failure == "majority" and not any(sample.scored for sample in run.arrived):
            degrade(run, UpstreamContract("the verifier scored no partial solution"))

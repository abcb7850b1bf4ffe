"""One item of work: sample its indices, score what came, read and grade the answers. Knows ports, no store."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from services.core.answers import extract_answer
from services.core.contracts import (
    Completion,
    EvaluationPlan,
    EvaluationProblem,
    GenerateRequest,
    Sampling,
    ScoreRequest,
    SolutionInput,
    SolutionScore,
)
from services.core.equivalence import Mode
from services.core.errors import InvalidRequest, UpstreamContract
from services.core.ports import Generator, Grader, Verifier
from services.core.steps import split_steps
from services.orchestrator.evaluation.items import Item, problem_seed
from services.orchestrator.evaluation.samples import ScoredSample


@dataclass(frozen=True, slots=True)
class ItemRunner:
    """Makes the samples of items. Without a verifier they have no scores, and majority is the only vote."""

    generator: Generator
    verifier: Verifier | None
    grader: Grader
    plan: EvaluationPlan

    async def run(self, item: Item, problem: EvaluationProblem) -> list[ScoredSample]:
        """The samples of `item`, in index order. Cancelling it stops what runs at the engine.

        Nothing in it depends on what else runs, so that an item that was lost can be made again, by anyone. A problem
        that the generator does not take (it is longer than its context) and a solution that cannot be scored carry
        their own error: they are wrong, and hold up no other. Raises what else the ports raise.
        """
        try:
            completions = await self._sample(item, problem)
        except InvalidRequest as error:
            return [_refused(error.code, problem)] * item.count
        scores = await self._score(problem, [c.text for c in completions])
        answers = [extract_answer(c.text, truncated=c.finish_reason != "stop") for c in completions]
        keys = await self._keys(answers)
        correct = await self._grades(problem.answer, answers)
        return [
            _sample(completion, scores.get(completion.text), answer, keys.get(answer), correct.get(answer))
            for completion, answer in zip(completions, answers, strict=True)
        ]

    async def _sample(self, item: Item, problem: EvaluationProblem) -> list[Completion]:
        sampling = self.plan.sampling.model_dump()
        sampling["seed"] = problem_seed(self.plan.seed, problem.id)
        request = GenerateRequest(
            problem=problem.problem, n=item.count, indices=list(item.indices), sampling=Sampling(**sampling)
        )
        found: dict[int, Completion] = {}
        async with aclosing(self.generator.generate(request)) as events:
            async for event in events:
                if isinstance(event, Completion):
                    found[event.index] = event
        if set(found) != set(item.indices):
            raise UpstreamContract("the generator gave other samples than it was asked for")
        return [found[index] for index in item.indices]

    async def _score(self, problem: EvaluationProblem, texts: Sequence[str]) -> dict[str, SolutionScore]:
        """Text to its score. Equal texts are scored once; one without a step has nothing to score."""
        distinct = [text for text in dict.fromkeys(texts) if split_steps(text)]
        if self.verifier is None or not distinct:
            return {}
        request = ScoreRequest(problem=problem.problem, solutions=[SolutionInput(text=text) for text in distinct])
        response, _ = await self.verifier.score(request)
        if len(response.solutions) != len(distinct):
            raise UpstreamContract("the verifier gave a wrong number of solutions")
        return dict(zip(distinct, response.solutions, strict=True))

    async def _keys(self, answers: Sequence[str | None]) -> dict[str | None, str]:
        distinct = [answer for answer in dict.fromkeys(answers) if answer is not None]
        return dict(zip(distinct, await self.grader.keys(distinct), strict=True))

    async def _grades(self, gold: str | None, answers: Sequence[str | None]) -> dict[str | None, bool]:
        """Answer to whether it is right. No answer is wrong, where there is a gold answer to compare with."""
        if gold is None:
            return {}
        distinct = [answer for answer in dict.fromkeys(answers) if answer is not None]
        verdicts = await self.grader.grade([(gold, answer) for answer in distinct], Mode.REFERENCE)
        return {None: False, **{a: v.equal for a, v in zip(distinct, verdicts, strict=True)}}


def _refused(code: str, problem: EvaluationProblem) -> ScoredSample:
    return ScoredSample(
        text="",
        answer=None,
        key=None,
        correct=None if problem.answer is None else False,
        finish_reason="cancelled",
        tokens=0,
        logprob=None,
        seed=0,
        scores=(),
        outcome=None,
        verifier_tokens=0,
        error=code,
    )


def _sample(
    completion: Completion, score: SolutionScore | None, answer: str | None, key: str | None, correct: bool | None
) -> ScoredSample:
    scored = score if score is not None and score.error is None else None
    return ScoredSample(
        text=completion.text,
        answer=answer,
        key=key,
        correct=correct,
        finish_reason=completion.finish_reason,
        tokens=completion.tokens,
        logprob=completion.logprob,
        seed=completion.seed,
        scores=tuple(step.score for step in scored.steps) if scored else (),
        outcome=scored.outcome if scored else None,
        verifier_tokens=scored.tokens if scored else 0,
        error=score.error.code if score is not None and score.error is not None else None,
    )

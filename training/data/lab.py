"""The lab domain as training data of every kind, exact labels by its checker. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from services.core.contracts import EvaluationProblem
from services.core.steps import split_steps
from training.data.records import Demonstration, LabelledSolution
from training.lab.checker import check
from training.lab.corrupt import corrupt
from training.lab.domain import Problem, Split, make_problem


def lab_problems(levels: Iterable[int], count: int, seed: int) -> list[Problem]:
    """`count` training problems, the levels in turn."""
    cycle = list(levels)
    return [make_problem(cycle[i % len(cycle)], seed + i, Split.TRAIN) for i in range(count)]


def as_demonstration(problem: Problem) -> Demonstration:
    """The right solution."""
    return Demonstration(problem=problem.question, solution=problem.solution, level=problem.level)


def as_problem(problem: Problem) -> EvaluationProblem:
    """What a policy is trained on: the question, with its answer for outcome rewards."""
    return EvaluationProblem(
        id=problem.identifier, problem=problem.question, answer=problem.answer, level=problem.level
    )


def judged(problem: Problem, text: str) -> LabelledSolution | None:
    """A sampled solution with the checker's labels; None for a text without a step."""
    steps = split_steps(text)
    verdict = check(problem, text)
    if len(steps) != len(verdict.labels) or not steps:
        return None
    return LabelledSolution(
        problem=problem.question,
        steps=steps,
        labels=[float(label) for label in verdict.labels],
        outcome=float(verdict.answer_right),
        level=problem.level,
    )


def with_corruptions(problem: Problem, count: int, seed: int) -> Iterator[LabelledSolution]:
    """The right solution and `count` with errors put in."""
    rng = random.Random(f"corrupt {seed} {problem.identifier}")
    for text in (problem.solution, *(corrupt(problem, rng).text for _ in range(count))):
        found = judged(problem, text)
        if found is not None:
            yield found

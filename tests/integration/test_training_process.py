"""A generator that a recipe trained, served by the real service, labels steps by rollouts over HTTP."""

import random
from pathlib import Path

import pytest

from services.core.contracts import EvaluationProblem
from tests.integration.processes import service
from training.data.lab import as_problem, lab_problems
from training.data.rollouts import label_by_rollouts
from training.lab.checker import Fault, check
from training.lab.corrupt import corrupt
from training.recipes.config import check_recipe
from training.sampling.backends import HttpSampler, SamplingPart
from training.sft import SftRecipe, train_sft

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

SFT = {
    "model": {"path": "models/generator", "max_length": 512, "lora": {"rank": 4}},
    "optimizer": {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-4},
    "data": [{"format": "lab", "count": 12, "seed": 9}],
}


def with_one_error() -> list[tuple[EvaluationProblem, str, int]]:
    """Solutions of level 3 whose first wrong step, a wrong result, is known: `(problem, text, place)`."""
    found = []
    for problem in lab_problems([3], 200, 500):
        text = corrupt(problem, random.Random(problem.identifier)).text
        verdict = check(problem, text)
        wrong = [k for k, fault in enumerate(verdict.faults) if fault is not Fault.NONE]
        if len(wrong) == 1 and 0 < wrong[0] < 3 and verdict.faults[wrong[0]] is Fault.ARITHMETIC:
            found.append((as_problem(problem), text, wrong[0]))
    return found[:8]


def test_steps_before_an_error_lead_to_the_answer_more_often_than_steps_after_it(tmp_path: Path) -> None:
    generator = train_sft(check_recipe(SftRecipe, {**SFT, "run": {"out": str(tmp_path / "sft"), "device": "cpu"}}))
    solutions = with_one_error()
    assert len(solutions) == 8
    with service("generator", tmp_path / "log", E2H_GENERATOR_MODEL=str(generator)) as process:
        found = label_by_rollouts(
            HttpSampler(process.url),
            [(problem, text) for problem, text, _ in solutions],
            SamplingPart(backend="http", url=process.url, max_tokens=80),
            completions=8,
            how="soft",
            seed=1,
        )
    before = [label or 0.0 for one, (_, _, place) in zip(found, solutions, strict=True) for label in one.labels[:place]]
    after = [label or 0.0 for one, (_, _, place) in zip(found, solutions, strict=True) for label in one.labels[place:]]
    assert sum(before) / len(before) > sum(after) / len(after) + 0.3

"""Fixtures of the training tests: tiny models on disk, quiet reports, recipes as tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from tests.tiny import save_generator
from training.data.lab import as_demonstration, lab_problems
from training.data.records import Demonstration
from training.lab.domain import Problem, solution_text
from training.recipes.config import check_recipe
from training.sft import SftRecipe, train_on

Tables = Callable[..., dict[str, Any]]


class StopAt(TrainerCallback):
    """Ends a run as if it had been interrupted after this step's checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal language model. Not to be changed by a test."""
    return save_generator(tmp_path_factory.mktemp("tiny-generator"))


@pytest.fixture
def tables(tiny_generator: Path, tmp_path: Path) -> Tables:
    """Tables of a recipe on the tiny model, on a CPU; `optimizer`, `model` and `run` extend theirs."""

    def made(**more: Any) -> dict[str, Any]:
        model = {"path": str(tiny_generator), "max_length": 400, **more.pop("model", {})}
        run = {"out": str(tmp_path / "run"), "device": "cpu", "log_every": 5, **more.pop("run", {})}
        optimizer = {"learning_rate": 3e-3, "batch_size": 4, **more.pop("optimizer", {})}
        return {"model": model, "run": run, "optimizer": optimizer, **more}

    return made


@pytest.fixture(scope="session")
def one_problem() -> Problem:
    """The problem that `two_minded` knows; `[[data]]` of it: lab, count 1, levels 1, seed 3."""
    return lab_problems([1], 1, 3)[0]


@pytest.fixture(scope="session")
def two_minded(tiny_generator: Path, one_problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that gives the right solution of one problem half of the time, else one with a wrong end."""
    wrong = solution_text([*one_problem.steps[:-1], one_problem.steps[-1] + "1"], one_problem.answer + "1")
    both = [as_demonstration(one_problem), Demonstration(problem=one_problem.question, solution=wrong, level=1)]
    table = {
        "model": {"path": str(tiny_generator)},
        "run": {"out": str(tmp_path_factory.mktemp("two-minded")), "device": "cpu"},
        "optimizer": {"learning_rate": 5e-3, "max_steps": 150, "batch_size": 2},
        "data": [{"format": "lab", "count": 1}],
    }
    return train_on(check_recipe(SftRecipe, table), both)

"""What ReST and iterated DPO share: one folder an iteration, and going on where a run was interrupted. No training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.contracts import EvaluationProblem
from services.core.seeds import derive_seed
from training.data.sources import Source
from training.policy.scored import Judge, Scored, VerifierPart, sample_and_score
from training.recipes.config import ConfigError, Recipe
from training.sampling.backends import SamplingPart, sampler_of

GENERATOR = "generator"
_DONE = "done.json"


class IteratedRecipe(Recipe):
    """Sample with the model, score with the verifier, train, and again with the new model."""

    verifier: VerifierPart
    sampling: SamplingPart = Field(default_factory=SamplingPart)
    iterations: int = Field(default=1, ge=1)
    data: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _samples_are_the_models(self) -> Self:
        if self.sampling.backend == "http" and self.iterations > 1:
            raise PydanticCustomError(
                "sampling", "a service over http keeps its model: one iteration, or vllm or local"
            )
        return self


def sampled(
    recipe: IteratedRecipe, judge: Judge, problems: Sequence[EvaluationProblem], model: str, iteration: int
) -> list[list[Scored]]:
    """What `model` samples in this iteration, scored: a group a problem, in order."""
    sampler = sampler_of(recipe.sampling, model, recipe.run)
    return sample_and_score(sampler, judge, problems, recipe.sampling, derive_seed(recipe.run.seed, iteration))


def run_iterations(recipe: IteratedRecipe, train_once: Callable[[int, str, Path], tuple[Path, dict[str, Any]]]) -> Path:
    """The last model, in `run.out/generator`.

    `train_once(iteration, model, folder)` trains from `model` and tells the new model's folder and what to log. A
    finished iteration is not done again when the run resumes. Raises `ConfigError` for leftovers of another run.
    """
    model = recipe.model.path
    for iteration in range(1, recipe.iterations + 1):
        folder = recipe.run.out / f"iteration-{iteration}"
        done = folder / _DONE
        if folder.exists() and not recipe.run.resume:
            raise ConfigError("run.out: holds an earlier run; name another folder, or set run.resume")
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            made, told = train_once(iteration, model, folder)
            done.write_text(json.dumps({"model": str(made), **told}) + "\n", encoding="utf-8")
        model = json.loads(done.read_text(encoding="utf-8"))["model"]
    final = recipe.run.out / GENERATOR
    shutil.rmtree(final, ignore_errors=True)
    shutil.copytree(model, final)
    return final

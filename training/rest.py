"""ReST-EM (Singh et al., 2023) with a verifier: sample, keep what it scores high, fine-tune, repeat.

    python -m training.rest CONFIG [--set KEY=VALUE]

Each iteration samples from the last model and, as in the paper, fine-tunes the first one again (`restart`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.answers import extract_answer
from training.data.own import write_jsonl
from training.data.records import Demonstration
from training.data.sources import FileSource, demonstrations, problems
from training.policy.iterations import IteratedRecipe, run_iterations, sampled
from training.policy.scored import Judge, Scored
from training.recipes.commands import recipe_parser, run_command
from training.recipes.config import ConfigError, Share, load_recipe
from training.sft import SftRecipe, train_on

_KEPT = "kept.jsonl"


class RestRecipe(IteratedRecipe):
    """The config file. Keeps samples scored at least `threshold`, of those the best `top` of a problem, texts once."""

    threshold: Share | None = None
    top: int | None = Field(default=None, ge=1)
    restart: bool = True

    @model_validator(mode="after")
    def _keeps_some(self) -> Self:
        if self.threshold is None and self.top is None:
            raise PydanticCustomError("threshold", "say what is kept: threshold, top, or both")
        return self


def kept(samples: Sequence[Scored], threshold: float | None, top: int | None) -> list[Scored]:
    """The samples of one problem to learn from, best first.

    Not kept: samples without an answer, and wrong ones where gold counts. Ties go to the earlier sample.
    """
    usable: dict[str, Scored] = {}
    for one in samples:
        if one.score is not None and one.correct is not False and extract_answer(one.text) is not None:
            usable.setdefault(one.text, one)
    ordered = sorted(usable.values(), key=lambda one: -(one.score or 0.0))
    return [one for one in ordered if threshold is None or (one.score or 0.0) >= threshold][:top]


def train_rest(recipe: RestRecipe) -> Path:
    """Train, and the folder of the generator. Raises `ConfigError`, `DataError`."""
    chosen = problems(recipe.data)
    judge = Judge(recipe.verifier, recipe.run)

    def once(iteration: int, model: str, folder: Path) -> tuple[Path, dict[str, Any]]:
        file = folder / _KEPT
        if not file.exists():
            groups = sampled(recipe, judge, chosen, model, iteration)
            best = [one for group in groups for one in kept(group, recipe.threshold, recipe.top)]
            if not best:
                raise ConfigError("threshold: no sample is scored as high")
            write_jsonl(map(_demonstration, best), file)
        inner = SftRecipe(
            model=recipe.model.model_copy(update={"path": recipe.model.path if recipe.restart else model}),
            run=recipe.run.model_copy(update={"out": folder}),
            optimizer=recipe.optimizer,
            data=[FileSource(format="demonstrations", path=str(file))],
        )
        found = demonstrations(inner.data)
        return train_on(inner, found), {"kept": len(found), "problems": len({one.problem for one in found})}

    return run_iterations(recipe, once)


def _demonstration(one: Scored) -> Demonstration:
    return Demonstration(problem=one.problem.problem, solution=one.text, level=one.problem.level)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from a config file."""
    options = recipe_parser(__doc__).parse_args(arguments)
    run_command(lambda: train_rest(load_recipe(RestRecipe, options.config, options.overrides)))


if __name__ == "__main__":
    main()

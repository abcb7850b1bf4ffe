"""The recipe of reward models: PRM, ORM and OPRM on one head (Sun et al., 2024, section 3).

    python -m training.reward CONFIG [--kind prm|orm|oprm] [--set KEY=VALUE]

The language-model head is replaced by one row that starts at zero: the mean of the paper's two rows, which start alike
and get the same gradient, so that under AdamW they stay alike. The result in `run.out` is served unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from transformers import TrainerCallback

from services.core.contracts import NonBlank, VerifierKind
from services.verifier.families.easy_to_hard import EosReadout
from training.data.records import LabelledSolution
from training.data.sources import Source, labelled
from training.judging.encoding import FamilyName, Labelled, Trainable, encode_labelled, trainable_family
from training.judging.export import export_verifier
from training.judging.trainer import RewardTrainer, collate_labelled
from training.recipes.commands import recipe_parser, run_command
from training.recipes.config import ConfigError, Recipe, load_recipe
from training.recipes.fitting import JsonlLog, Rows, fit, training_arguments
from training.recipes.loading import load_scorer, load_tokenizer

VERIFIER = "verifier"  # the folder under run.out that the service loads


class RewardRecipe(Recipe):
    """The config file of `python -m training.reward`."""

    kind: VerifierKind
    family: FamilyName = "easy-to-hard"
    outputs: Literal[1, 2] = 1  # 2: family token-classification, as TRL's PRMTrainer has it
    eos_readout: EosReadout = "at"
    separator: NonBlank | Literal["\n"] | None = None  # family token-classification; a newline unless given
    label_tokens: Literal["all"] | int = "all"  # of a step: all of them, or the last so many
    outcome_weight: float = Field(default=1.0, gt=0.0)  # an outcome counts as so many tokens
    data: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _family_has_it(self) -> Self:
        if self.family == "easy-to-hard" and (self.outputs != 1 or self.separator is not None):
            raise PydanticCustomError("family", "family easy-to-hard has one output and no separator of its own")
        if self.family == "token-classification" and (self.kind != "prm" or self.eos_readout != "at"):
            raise PydanticCustomError("family", "family token-classification has step scores alone (kind prm)")
        if self.label_tokens != "all" and self.label_tokens < 1:
            raise PydanticCustomError("label_tokens", "label_tokens is all, or at least 1")
        return self


def train_reward(recipe: RewardRecipe, *, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Train, and the folder of the verifier. Raises `ConfigError`, `DataError`."""
    return train_on(recipe, labelled(recipe.data), callbacks=callbacks)


def train_on(
    recipe: RewardRecipe,
    solutions: Sequence[LabelledSolution],
    *,
    model: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """The same on labelled solutions at hand; `model` is a prepared scorer instead of the one of `recipe.model`."""
    tokenizer = load_tokenizer(recipe.model.path)
    family = family_of(recipe, tokenizer)
    kept = encode_all(recipe, family, solutions)
    log = JsonlLog(recipe.run.out / "log.jsonl")
    log.write(solutions=len(solutions), trained=len(kept), left_out=len(solutions) - len(kept))
    if not kept:
        raise ConfigError("data: no solution has a label of this kind and fits model.max_length")
    model = load_scorer(recipe.model, recipe.run, labels=recipe.outputs) if model is None else model
    trainer = RewardTrainer(
        model=model,
        args=training_arguments(recipe.model, recipe.optimizer, recipe.run),
        train_dataset=Rows([one for _, one in kept]),
        data_collator=partial(collate_labelled, pad_id=int(tokenizer.pad_token_id)),
        callbacks=list(callbacks),
    )
    fit(trainer, recipe.run)
    folder = recipe.run.out / VERIFIER
    export_verifier(
        model,
        tokenizer,
        folder,
        family=family,
        name=recipe.family,
        kind=recipe.kind,
        golden=kept[0][0],
        own=own_settings(recipe),
    )
    return folder


def family_of(recipe: RewardRecipe, tokenizer: Any) -> Trainable:
    """The family that the recipe trains for."""
    return trainable_family(
        tokenizer,
        recipe.family,
        recipe.kind,
        eos_readout=recipe.eos_readout,
        separator=recipe.separator or "\n",
    )


def own_settings(recipe: RewardRecipe) -> dict[str, Any]:
    """What the served family reads of its config beside its name and kind."""
    if recipe.family == "easy-to-hard":
        return {"eos_readout": recipe.eos_readout}
    return {"separator": recipe.separator or "\n"}


def encode_all(
    recipe: RewardRecipe, family: Trainable, solutions: Sequence[LabelledSolution]
) -> list[tuple[LabelledSolution, Labelled]]:
    """The solutions that have a label of this kind and fit, with their sequences."""
    found = []
    for solution in solutions:
        encoded = encode_labelled(
            family,
            solution,
            label_tokens=None if recipe.label_tokens == "all" else recipe.label_tokens,
            outcome_weight=recipe.outcome_weight,
        )
        if encoded is not None and len(encoded.ids) <= recipe.model.max_length:
            found.append((solution, encoded))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from a config file."""
    parser = recipe_parser(__doc__)
    parser.add_argument("--kind", choices=("prm", "orm", "oprm"), help="overrides kind of the config")
    options = parser.parse_args(arguments)
    kind = [f"kind='{options.kind}'"] if options.kind else []
    run_command(lambda: train_reward(load_recipe(RewardRecipe, options.config, [*options.overrides, *kind])))


if __name__ == "__main__":
    main()

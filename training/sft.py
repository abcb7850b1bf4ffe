"""The recipe of supervised fine-tuning: loss on the solution's tokens and the end of the sequence alone.

    python -m training.sft CONFIG [--set KEY=VALUE]

Sequences are built from pieces as the generator service builds its prompt, so what is trained is what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydantic import Field
from transformers import Trainer, TrainerCallback

from training.data.records import Demonstration
from training.data.sources import Source, demonstrations
from training.recipes.commands import recipe_parser, run_command
from training.recipes.config import ConfigError, Recipe, load_recipe
from training.recipes.fitting import JsonlLog, Rows, fit, training_arguments
from training.recipes.loading import load_causal, load_tokenizer, merged, save_model
from training.recipes.writing import SolutionEncoder, collate_written

GENERATOR = "generator"  # the folder under run.out that vLLM loads


class SftRecipe(Recipe):
    """The config file of `python -m training.sft`."""

    data: list[Source] = Field(min_length=1)


def train_sft(recipe: SftRecipe, *, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Train, and the folder of the generator. Raises `ConfigError`, `DataError`."""
    return train_on(recipe, demonstrations(recipe.data), callbacks=callbacks)


def train_on(recipe: Recipe, found: Sequence[Demonstration], *, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """The same on demonstrations at hand."""
    tokenizer = load_tokenizer(recipe.model.path)
    encoder = SolutionEncoder(tokenizer)
    written = [encoder.write(one.problem, one.solution) for one in found]
    kept = [one for one in written if len(one) <= recipe.model.max_length]
    log = JsonlLog(recipe.run.out / "log.jsonl")
    log.write(demonstrations=len(written), trained=len(kept), left_out=len(written) - len(kept))
    if not kept:
        raise ConfigError("data: no demonstration fits model.max_length")
    model = load_causal(recipe.model, recipe.run)
    trainer = Trainer(
        model=model,
        args=training_arguments(recipe.model, recipe.optimizer, recipe.run),
        train_dataset=Rows(kept),
        data_collator=partial(collate_written, pad_id=int(tokenizer.pad_token_id)),
        callbacks=list(callbacks),
    )
    fit(trainer, recipe.run)
    return save_model(merged(model), tokenizer, recipe.run.out / GENERATOR)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from a config file."""
    options = recipe_parser(__doc__).parse_args(arguments)
    run_command(lambda: train_sft(load_recipe(SftRecipe, options.config, options.overrides)))


if __name__ == "__main__":
    main()

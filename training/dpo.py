"""Iterated DPO (Rafailov et al., 2023) on pairs that the verifier ranks: a problem's best samples against its worst.

    python -m training.dpo CONFIG [--set KEY=VALUE]

TRL's DPOTrainer; the reference of an iteration is the model that it began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from pydantic import Field
from transformers import TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from services.core.contracts import NonBlank, Problem
from services.core.contracts.base import Wire
from training.data.files import rows
from training.data.own import write_jsonl
from training.data.sources import problems
from training.policy.iterations import IteratedRecipe, run_iterations, sampled
from training.policy.scored import Judge, Scored
from training.recipes.commands import recipe_parser, run_command
from training.recipes.config import ConfigError, Recipe, load_recipe
from training.recipes.fitting import JsonlLog, fit, training_arguments
from training.recipes.loading import load_causal, load_causal_for_sampling, load_tokenizer, merged, save_model
from training.recipes.writing import SolutionEncoder

_PAIRS = "pairs.jsonl"


class DpoRecipe(IteratedRecipe):
    """The config file. `margin` is in ranks (a score, and 1 more for a right answer where gold counts)."""

    beta: float = Field(default=0.1, gt=0.0)
    margin: float = Field(default=0.1, ge=0.0)
    pairs: int = Field(default=1, ge=1)  # of a problem, at most


class Pair(Wire):
    """Two solutions of a problem, the better first."""

    problem: Problem
    chosen: NonBlank
    rejected: NonBlank


def pairs_of(samples: Sequence[Scored], margin: float, most: int) -> list[Pair]:
    """The best against the worst of one problem, the second best against the second worst, and so on.

    Samples without a score are left out, equal texts count once; a pair is at least `margin` apart.
    """
    ranks = {one.text: one.rank for one in samples if one.rank is not None and one.text.strip()}
    ordered = sorted(ranks, key=lambda text: (-ranks[text], text))
    couples = zip(ordered, reversed(ordered[len(ordered) // 2 :]), strict=False)
    apart = [(a, b) for a, b in couples if ranks[a] > ranks[b] and ranks[a] - ranks[b] >= margin]
    return [Pair(problem=samples[0].problem.problem, chosen=a, rejected=b) for a, b in apart[:most]]


class PieceDPOTrainer(DPOTrainer):
    """DPOTrainer on ids that are built from pieces already: its own preparation would tokenise texts."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def train_dpo(recipe: DpoRecipe) -> Path:
    """Train, and the folder of the generator. Raises `ConfigError`, `DataError`."""
    chosen = problems(recipe.data)
    judge = Judge(recipe.verifier, recipe.run)

    def once(iteration: int, model: str, folder: Path) -> tuple[Path, dict[str, Any]]:
        file = folder / _PAIRS
        if not file.exists():
            groups = sampled(recipe, judge, chosen, model, iteration)
            found = [pair for group in groups for pair in pairs_of(group, recipe.margin, recipe.pairs)]
            if not found:
                raise ConfigError("margin: no two samples of a problem are so far apart")
            write_jsonl(found, file)
        pairs = [Pair.model_validate(dict(row)) for _, row in rows(str(file))]
        inner = Recipe(
            model=recipe.model.model_copy(update={"path": model}),
            run=recipe.run.model_copy(update={"out": folder}),
            optimizer=recipe.optimizer,
        )
        return train_on_pairs(inner, pairs, beta=recipe.beta), {"pairs": len(pairs)}

    return run_iterations(recipe, once)


def train_on_pairs(
    recipe: Recipe, pairs: Sequence[Pair], *, beta: float, callbacks: Sequence[TrainerCallback] = ()
) -> Path:
    """DPO on pairs at hand, and the folder of the generator. Raises `ConfigError`."""
    tokenizer = load_tokenizer(recipe.model.path)
    encoder = SolutionEncoder(tokenizer)
    encoded = [one for pair in pairs if (one := _encoded(encoder, pair, recipe.model.max_length)) is not None]
    JsonlLog(recipe.run.out / "log.jsonl").write(pairs=len(pairs), trained=len(encoded))
    if not encoded:
        raise ConfigError("data: no pair fits model.max_length")
    # Without adapters the reference is a second copy; with them it is the model without them.
    whole = recipe.model.lora is None
    trainer = PieceDPOTrainer(
        model=load_causal(recipe.model, recipe.run),
        ref_model=load_causal_for_sampling(recipe.model.path, recipe.run) if whole else None,
        args=training_arguments(
            recipe.model, recipe.optimizer, recipe.run, DPOConfig, beta=beta, max_length=None, disable_dropout=False
        ),
        train_dataset=datasets.Dataset.from_list(encoded),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    fit(trainer, recipe.run)
    return save_model(merged(trainer.model), tokenizer, recipe.run.out / "generator")


def _encoded(encoder: SolutionEncoder, pair: Pair, max_length: int) -> dict[str, list[int]] | None:
    chosen, rejected = (encoder.write(pair.problem, text) for text in (pair.chosen, pair.rejected))
    if max(len(chosen), len(rejected)) > max_length:
        return None
    return {"prompt_ids": chosen.prompt, "chosen_ids": chosen.solution, "rejected_ids": rejected.solution}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from a config file."""
    options = recipe_parser(__doc__).parse_args(arguments)
    run_command(lambda: train_dpo(load_recipe(DpoRecipe, options.config, options.overrides)))


if __name__ == "__main__":
    main()

"""PPO with step-level rewards: the verifier pays steps, gold answers pay ends, KL to the first model costs.

    python -m training.ppo CONFIG [--set KEY=VALUE]

As in Sun et al. (2024): the outcome on easy problems (`verifier.gold_levels`), `min` or `prod` process reward on all.
The loop is ours because TRL's GRPO and RLOO pay whole sequences (docs/decisions/0016-training-recipes.md).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.contracts import EvaluationProblem, NonBlank
from services.core.seeds import derive_seed
from training.data.sources import Source, problems
from training.policy.checkpoint import load_checkpoint, save_checkpoint
from training.policy.episodes import Episode, episode
from training.policy.loop import Actors, PpoNumbers, prepare, update
from training.policy.rewards import SHAPED, Placement, token_rewards
from training.policy.scored import Judge, VerifierPart, sample_and_score
from training.recipes.commands import recipe_parser, run_command
from training.recipes.config import ConfigError, ModelPart, Part, Run, Share, load_recipe
from training.recipes.fitting import JsonlLog
from training.recipes.loading import (
    load_causal,
    load_causal_for_sampling,
    load_scorer,
    load_tokenizer,
    merged,
    save_model,
    uses_bfloat16,
)
from training.recipes.writing import SolutionEncoder
from training.sampling.backends import SamplingPart
from training.sampling.local import LocalSampler

GENERATOR = "generator"
_CHECKPOINT = "checkpoint"


class PpoOptimizer(Part):
    """AdamW. `batch_size` solutions an update, `epochs` passes over an iteration's solutions."""

    learning_rate: float = Field(default=1e-6, gt=0.0)
    value_learning_rate: float = Field(default=1e-5, gt=0.0)
    batch_size: int = Field(default=32, ge=1)
    epochs: int = Field(default=1, ge=1)
    schedule: Literal["linear", "constant"] = "constant"  # over the iterations
    weight_decay: float = Field(default=0.0, ge=0.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)


class PpoRecipe(Part):
    """The config file. `run.save_every` and `run.log_every` are in iterations."""

    model: ModelPart
    run: Run
    optimizer: PpoOptimizer = Field(default_factory=PpoOptimizer)
    verifier: VerifierPart
    sampling: SamplingPart = Field(default_factory=SamplingPart)
    iterations: int = Field(ge=1)
    problems: int = Field(default=32, ge=1)  # of an iteration, each with sampling.n solutions
    baseline: Literal["value", "group"] = "value"  # GAE over a value model, or the problem's other solutions
    value_model: NonBlank | None = None  # what the value model starts from; the verifier's folder unless given
    placement: Placement = "steps"
    process_weight: float = Field(default=1.0, ge=0.0)
    outcome_weight: float = Field(default=1.0, ge=0.0)
    kl_weight: float = Field(default=0.02, ge=0.0)
    clip: float = Field(default=0.2, gt=0.0, lt=1.0)
    value_clip: float = Field(default=0.2, gt=0.0)
    gamma: Share = 1.0
    lam: Share = 0.95
    data: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.sampling.backend != "local":
            raise PydanticCustomError("sampling", "ppo samples from the policy itself: backend local")
        if self.sampling.top_p != 1.0:
            raise PydanticCustomError("sampling", "ppo needs the probability of what it samples: top_p 1")
        if self.model.lora is not None and self.model.lora.dropout > 0.0:
            raise PydanticCustomError("lora", "with dropout no ratio of probabilities is 1: ppo takes dropout 0")
        if self.baseline == "group" and (self.sampling.n < 2 or self.value_model is not None):
            raise PydanticCustomError("baseline", "a group baseline needs n of 2 or more, and no value_model")
        return self

    @property
    def numbers(self) -> PpoNumbers:
        """What the loop reads."""
        return PpoNumbers(
            batch_size=self.optimizer.batch_size,
            epochs=self.optimizer.epochs,
            clip=self.clip,
            value_clip=self.value_clip,
            gamma=self.gamma,
            lam=self.lam,
            kl_weight=self.kl_weight,
            temperature=self.sampling.temperature,
            max_grad_norm=self.optimizer.max_grad_norm,
        )


def train_ppo(recipe: PpoRecipe, *, stop_after: int | None = None) -> Path:
    """Train, and the folder of the generator. Raises `ConfigError`, `DataError`.

    `stop_after` ends the run after so many iterations as if it had been interrupted there; a checkpoint is left.
    """
    tokenizer, judge = load_tokenizer(recipe.model.path), Judge(recipe.verifier, recipe.run)
    if recipe.placement == "steps" and judge.how not in SHAPED:
        raise ConfigError("placement: steps are paid under min and prod alone")
    run = _Run(recipe, tokenizer, judge, problems(recipe.data))
    last = recipe.iterations if stop_after is None else min(stop_after, recipe.iterations)
    for iteration in range(run.restored(), last):
        run.iterate(iteration)
        if iteration + 1 == last or (recipe.run.save_every and (iteration + 1) % recipe.run.save_every == 0):
            run.save(iteration + 1)
    return save_model(merged(run.actors.policy).eval(), tokenizer, recipe.run.out / GENERATOR)


class _Run:
    """The models and files of one run."""

    def __init__(self, recipe: PpoRecipe, tokenizer: Any, judge: Judge, chosen: list[EvaluationProblem]) -> None:
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._judge = judge
        self._problems = chosen
        self._encoder = SolutionEncoder(tokenizer)
        self._pad_id = int(tokenizer.pad_token_id)
        self._log = JsonlLog(recipe.run.out / "log.jsonl")
        self.actors = _actors(recipe)

    def restored(self) -> int:
        """The number of iterations that are done."""
        return load_checkpoint(self._folder, self._parts) if self._recipe.run.resume else 0

    def save(self, iterations: int) -> None:
        """Leave a checkpoint."""
        save_checkpoint(self._folder, iterations, self._parts)

    def iterate(self, iteration: int) -> None:
        """One iteration; all its random numbers come from (seed, iteration), so that none has to be kept."""
        recipe = self._recipe
        seed = derive_seed(recipe.run.seed, iteration)
        chosen = random.Random(seed).sample(self._problems, min(recipe.problems, len(self._problems)))
        episodes = self._episodes(chosen, seed)
        rewards = [self._paid(one) for one in episodes]
        prepared, kl = prepare(self.actors, recipe.numbers, episodes, rewards, self._pad_id)
        share = 1.0 if recipe.optimizer.schedule == "constant" else 1.0 - iteration / recipe.iterations
        _set_rate(self.actors.optimizer, recipe.optimizer.learning_rate * share)
        if self.actors.value_optimizer is not None:
            _set_rate(self.actors.value_optimizer, recipe.optimizer.value_learning_rate * share)
        told = update(self.actors, recipe.numbers, prepared, self._pad_id, seed)
        if (iteration + 1) % recipe.run.log_every == 0:
            self._log.write(iteration=iteration + 1, kl=kl, **_seen(episodes, rewards), **told)

    def _episodes(self, chosen: Sequence[EvaluationProblem], seed: int) -> list[Episode]:
        sampler = LocalSampler(self.actors.policy, self._tokenizer)
        groups = sample_and_score(sampler, self._judge, chosen, self._recipe.sampling, seed)
        made = [episode(self._encoder, one, number) for number, group in enumerate(groups) for one in group]
        kept = [one for one in made if one is not None and len(one.written) <= self._recipe.model.max_length]
        if not kept:
            raise ConfigError("sampling: no sample has a token within model.max_length")
        return kept

    def _paid(self, one: Episode) -> list[float]:
        recipe = self._recipe
        return token_rewards(
            one.sample,
            one.ends,
            len(one.written.solution),
            self._judge.how,
            placement=recipe.placement,
            process_weight=recipe.process_weight,
            outcome_weight=recipe.outcome_weight,
        )

    @property
    def _folder(self) -> Path:
        return self._recipe.run.out / _CHECKPOINT

    @property
    def _parts(self) -> dict[str, tuple[Any, torch.optim.Optimizer]]:
        parts = {"policy": (self.actors.policy, self.actors.optimizer)}
        if self.actors.value is not None and self.actors.value_optimizer is not None:
            parts["value"] = (self.actors.value, self.actors.value_optimizer)
        return parts


def _actors(recipe: PpoRecipe) -> Actors:
    policy = load_causal(recipe.model, recipe.run)
    whole = recipe.model.lora is None
    value = None
    if recipe.baseline == "value":
        path = recipe.value_model or recipe.verifier.path
        if load_tokenizer(path).get_vocab() != load_tokenizer(recipe.model.path).get_vocab():
            raise ConfigError("value_model: has another tokenizer than the policy")
        value = load_scorer(recipe.model.model_copy(update={"path": path}), recipe.run, new_head=True)
    for model in filter(None, (policy, value)):
        if recipe.model.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Actors(
        policy=policy,
        optimizer=_adamw(policy, recipe.optimizer.learning_rate, recipe.optimizer.weight_decay),
        reference=load_causal_for_sampling(recipe.model.path, recipe.run) if whole else None,
        value=value,
        value_optimizer=None
        if value is None
        else _adamw(value, recipe.optimizer.value_learning_rate, recipe.optimizer.weight_decay),
        bfloat16=uses_bfloat16(recipe.run),
    )


def _adamw(model: Any, rate: float, weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=weight_decay)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _seen(episodes: Sequence[Episode], rewards: Sequence[list[float]]) -> dict[str, Any]:
    known = [one.sample.correct for one in episodes if one.sample.correct is not None]
    return {
        "solutions": len(episodes),
        "reward": sum(map(sum, rewards)) / len(rewards),
        "unscored": sum(one.sample.score is None for one in episodes) / len(episodes),
        "correct_where_gold_counts": sum(known) / len(known) if known else None,
        "tokens": sum(len(one.written.solution) for one in episodes) / len(episodes),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from a config file."""
    options = recipe_parser(__doc__).parse_args(arguments)
    run_command(lambda: train_ppo(load_recipe(PpoRecipe, options.config, options.overrides)))


if __name__ == "__main__":
    main()

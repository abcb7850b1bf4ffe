"""The config file of the experiment: seeds, sizes, and what the policy recipes override. Reads no model, no data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from services.core.contracts import MAX_SAMPLES, NonBlank
from training.recipes.config import Part, Seed, Share

Count = Annotated[int, Field(ge=1)]


class GeneratorPlan(Part):
    """The generator: demonstrations learned by heart, then more of them seen once (`training.lab.sft`).

    `start`, a folder, is taken for what the first stage would have made.
    """

    start: NonBlank | None = None
    demonstrations: Count
    steps: Count
    more_demonstrations: Count
    more_steps: Count


class VerifierPlan(Part):
    """Every verifier: `problems` with errors put in, the first `sampled` of them with the generator's own samples.

    `steps` are the batches of each stage, two stages at most. Solutions of all levels are 1.6 times as long as easy
    ones: full supervision has counts of its own, so that it may see as many tokens. A verifier below `gate`, the AUROC
    within held-out easy problems, is trained anew from other weights, at most `tries` times in all.
    """

    problems: Count
    sampled: Count
    steps: list[Count] = Field(min_length=1, max_length=2)
    full_sampled: Count
    full_steps: list[Count] = Field(min_length=1, max_length=2)
    gate: Share = 0.85
    tries: Count = 1


class PolicyPlan(Part):
    """The policies: batches of the control's fine-tuning, and `key=value` over the lab's config of each recipe."""

    control_steps: Count
    rest: list[str] = Field(default_factory=list)
    dpo: list[str] = Field(default_factory=list)
    ppo: list[str] = Field(default_factory=list)


class EvaluationPlan(Part):
    """Held-out problems of each level, drawn from `seed`: `n` samples of each, `policy_n` of hard ones by policies."""

    problems_a_level: Count
    seed: Seed
    n: Annotated[int, Field(ge=2, le=MAX_SAMPLES)]
    policy_n: Annotated[int, Field(ge=2, le=MAX_SAMPLES)]


class Experiment(Part):
    """`python -m training.experiment CONFIG`."""

    seeds: list[Seed] = Field(min_length=1)
    generator: GeneratorPlan
    verifier: VerifierPlan
    policy: PolicyPlan
    evaluation: EvaluationPlan

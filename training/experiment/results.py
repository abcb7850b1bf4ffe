"""The evaluations of all seeds as values per problem, pooled with intervals. Reads stores, loads no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.core.aggregation import Aggregation
from services.core.contracts.evaluation import EASY_LEVELS, HARD_LEVELS
from services.core.voting import Strategy
from services.orchestrator.evaluation.arrays import ProblemArrays, arrays_of
from services.orchestrator.evaluation.curves import count_votes
from services.orchestrator.evaluation.estimators import Rule
from services.orchestrator.evaluation.findings import Estimate
from services.orchestrator.evaluation.quality import auroc
from services.orchestrator.evaluation.store import ResultsStore
from training.experiment.stages import POLICIES, SAMPLED

Floats = NDArray[np.float64]
GROUPS: Mapping[str, Sequence[int]] = {"easy": EASY_LEVELS, "hard": HARD_LEVELS}
DRAWS = 200
RESAMPLES = 4000

# What is compared: the verifier, and the score that its votes weigh by.
JUDGES: Mapping[str, tuple[str, Aggregation]] = {
    "PRM": ("prm", Aggregation.MIN),
    "OPRM": ("oprm", Aggregation.MIN),
    "ORM": ("orm", Aggregation.OUTCOME),
    "PRM, levels 1-5": ("prm-full", Aggregation.MIN),
}
MAJORITY, ORACLE, SINGLE = "majority", "pass@k (oracle)", "pass@1"
BASE = "SFT on easy (base)"
POLICY_NAMES: Mapping[str, str] = {
    "control": "SFT on all easy solutions",
    "rest": "ReST-EM",
    "dpo": "DPO",
    "ppo": "PPO",
}


def rule_name(strategy: str, judge: str) -> str:
    """How a rule is called in tables: `weighted (PRM)`."""
    return f"{strategy} ({judge})"


@dataclass(frozen=True)
class Results:
    """Accuracies by name: arrays (seeds, problems, sizes) of votes, (seeds, hard problems) of policies.

    `auroc[judge]`, (seeds, problems), is NaN for problems whose samples are all right or all wrong. `levels` are those
    of the problems.
    """

    seeds: tuple[int, ...]
    levels: tuple[int, ...]
    sizes: tuple[int, ...]
    votes: Mapping[str, Floats]
    auroc: Mapping[str, Floats]
    single: Mapping[str, Floats]
    majority: Mapping[str, Floats]

    def places(self, group: str) -> list[int]:
        """The problems of a group."""
        return [i for i, level in enumerate(self.levels) if level in GROUPS[group]]

    def vote(self, name: str, group: str, size: int | None = None) -> Floats:
        """(seeds, problems of the group): a rule with `size` samples, all of them unless given."""
        at = -1 if size is None else self.sizes.index(size)
        return self.votes[name][:, self.places(group), at]


def read_results(out: Path, seeds: Sequence[int]) -> Results:
    """What is under `out`. Raises `NotFound` for an evaluation that is not there."""
    found = [_seed(out / f"seed-{seed}") for seed in seeds]
    levels, sizes = found[0].levels, found[0].sizes
    return Results(
        seeds=tuple(seeds),
        levels=levels,
        sizes=sizes,
        votes=_stacked([one.votes for one in found]),
        auroc=_stacked([one.auroc for one in found]),
        single=_stacked([one.single for one in found]),
        majority=_stacked([one.majority for one in found]),
    )


def _stacked(rows: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@dataclass(frozen=True)
class _Seed:
    levels: tuple[int, ...]
    sizes: tuple[int, ...]
    votes: dict[str, Floats]
    auroc: dict[str, Floats]
    single: dict[str, Floats]
    majority: dict[str, Floats]


def _seed(folder: Path) -> _Seed:
    votes: dict[str, Floats] = {}
    aurocs: dict[str, Floats] = {}
    for judge, (verifier, how) in JUDGES.items():
        problems = _arrays(folder / f"eval-{verifier}", [how])
        rules = (Rule(Strategy.WEIGHTED, how.value), Rule(Strategy.BEST_OF_N, how.value))
        counted = count_votes(problems, (Rule(Strategy.MAJORITY), *rules), DRAWS, 0)
        for place, rule in enumerate(rules, start=1):
            votes[rule_name(rule.strategy.value, judge)] = counted.right[:, place]
        aurocs[judge] = np.array([_within(problem, how) for problem in problems])
        if verifier == SAMPLED:
            votes |= {MAJORITY: counted.right[:, 0], ORACLE: counted.oracle}
            levels, sizes = tuple(level or 0 for level in counted.levels), counted.sizes
    single, majority = {}, {}
    for policy in POLICIES:
        counted = count_votes(_arrays(folder / f"eval-{policy}", []), (Rule(Strategy.MAJORITY),), DRAWS, 0)
        single[POLICY_NAMES[policy]] = counted.oracle[:, 0]
        majority[POLICY_NAMES[policy]] = counted.right[:, 0, -1]
        size = counted.sizes[-1]
    hard = [level in HARD_LEVELS for level in levels]
    single[BASE] = votes[ORACLE][hard, 0]
    majority[BASE] = votes[MAJORITY][hard, sizes.index(size)]
    return _Seed(levels, sizes, votes, aurocs, single, majority)


def _arrays(folder: Path, scores: Sequence[Aggregation]) -> list[ProblemArrays]:
    return [arrays_of(sampled, scores) for sampled in ResultsStore(str(folder)).read()]


def _within(problem: ProblemArrays, how: Aggregation) -> float:
    scores = problem.scores[how.value]
    known = ~np.isnan(scores)
    found = auroc(scores[known], problem.right[known])
    return float("nan") if found is None else found


def pooled(values: Floats, seed: int = 0) -> Estimate | None:
    """The mean of (seeds, problems) with a 95 % interval that resamples seeds and problems both.

    NaN is left out; None where nothing else is there. The problems are the same for all seeds: a resample takes whole
    rows and whole columns. With few seeds the spread between seeds is underestimated, as by any bootstrap of few units.
    """
    known = ~np.isnan(values)
    if not known.any():
        return None
    rng = np.random.default_rng(seed)
    rows, columns = values.shape
    # How often each row and column is drawn: means are then quotients of two bilinear forms.
    row_weights = rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES).astype(np.float64)
    column_weights = rng.multinomial(columns, np.full(columns, 1 / columns), RESAMPLES).astype(np.float64)
    sums = ((row_weights @ np.where(known, values, 0.0)) * column_weights).sum(axis=1)
    counts = ((row_weights @ known) * column_weights).sum(axis=1)
    low, high = np.quantile(sums[counts > 0] / counts[counts > 0], [0.025, 0.975])
    return Estimate.of(float(values[known].mean()), float(low), float(high))


def by_seed(values: Floats) -> tuple[float | None, ...]:
    """The mean of each seed; None where it has no value."""
    means = (row[~np.isnan(row)] for row in values)
    return tuple(float(row.mean()) if len(row) else None for row in means)

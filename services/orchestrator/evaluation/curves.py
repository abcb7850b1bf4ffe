"""Accuracies of every rule at every k, with intervals, for groups of problems. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from services.core.aggregation import Aggregation
from services.core.contracts.evaluation import EASY_LEVELS, HARD_LEVELS
from services.core.voting import Strategy
from services.orchestrator.evaluation.arrays import OWN_LIKELIHOODS, Floats, ProblemArrays
from services.orchestrator.evaluation.estimators import (
    Rule,
    accuracies,
    generator_tokens,
    is_exact,
    pass_at,
    verifier_tokens,
)
from services.orchestrator.evaluation.findings import Curve, Difference, Estimate, Point, rounded
from services.orchestrator.evaluation.intervals import estimates
from services.orchestrator.evaluation.predictions import sizes_up_to

MAJORITY = Rule(Strategy.MAJORITY)


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """What is estimated of every problem, before any mean over problems.

    `right` is (problems, rules, sizes), `oracle` (problems, sizes): pass@k. `generator` and `verifier` are the tokens
    at each size, (problems, sizes).
    """

    levels: tuple[int | None, ...]
    n: int
    rules: tuple[Rule, ...]
    sizes: tuple[int, ...]
    right: Floats
    oracle: Floats
    generator: Floats
    verifier: Floats

    def of(self, chosen: Sequence[int]) -> "Votes":
        """Those of some of the problems, by place."""
        at = list(chosen)
        levels = tuple(self.levels[i] for i in at)
        arrays = (self.right[at], self.oracle[at], self.generator[at], self.verifier[at])
        return Votes(levels, self.n, self.rules, self.sizes, *arrays)


def rules_for(aggregations: Sequence[Aggregation], problems: Sequence[ProblemArrays]) -> tuple[Rule, ...]:
    """Majority; weighted and best_of_n under each aggregation; weighted by what the generator thinks of its samples,
    where it told for every problem."""
    scored = [Rule(s, how.value) for s in (Strategy.WEIGHTED, Strategy.BEST_OF_N) for how in aggregations]
    own = [Rule(Strategy.WEIGHTED, name) for name in OWN_LIKELIHOODS if all(name in p.scores for p in problems)]
    return (MAJORITY, *scored, *own)


def count_votes(problems: Sequence[ProblemArrays], rules: tuple[Rule, ...], draws: int, seed: int) -> Votes:
    """Vote with every rule at every size. All problems have the same number of samples."""
    n = problems[0].n
    sizes = tuple(sizes_up_to(n))
    return Votes(
        levels=tuple(problem.level for problem in problems),
        n=n,
        rules=rules,
        sizes=sizes,
        right=np.stack([accuracies(problem, rules, sizes, draws, seed) for problem in problems]),
        oracle=np.array([[pass_at(problem, k) for k in sizes] for problem in problems]),
        generator=np.array([[generator_tokens(problem, k) for k in sizes] for problem in problems]),
        verifier=np.array([[verifier_tokens(problem, k) for k in sizes] for problem in problems]),
    )


def groups_of(levels: Sequence[int | None]) -> Iterator[tuple[str, list[int]]]:
    """Name and places of each group that has problems: all, easy and hard, each level."""
    wanted = {"easy": EASY_LEVELS, "hard": HARD_LEVELS, **{f"level {i}": (i,) for i in (*EASY_LEVELS, *HARD_LEVELS)}}
    yield "all", list(range(len(levels)))
    for name, members in wanted.items():
        places = [i for i, level in enumerate(levels) if level in members]
        if places:
            yield name, places


def curves_of(votes: Votes, seed: int) -> tuple[list[Curve], list[Difference]]:
    """All curves of a group, and the paired differences between rules."""
    rows: dict[tuple[str, ...], Floats] = {}
    for place in range(len(votes.sizes)):
        oracle = votes.oracle[:, place]
        rows["oracle", str(place)] = oracle
        for i, rule in enumerate(votes.rules):
            rows[rule.label, str(place)] = votes.right[:, i, place]
            rows[rule.label, "gap", str(place)] = oracle - votes.right[:, i, place]
    pairs = list(_pairs(votes.rules))
    for i, j in pairs:
        for place in range(1, len(votes.sizes)):
            row = votes.right[:, i, place] - votes.right[:, j, place]
            rows[votes.rules[i].label, "minus", votes.rules[j].label, str(place)] = row
    found = estimates(rows, seed)
    oracle_curve = Curve(strategy="pass", score=None, points=_points(votes, None, found))
    curves = [Curve(strategy=r.strategy, score=r.score, points=_points(votes, r, found)) for r in votes.rules]
    return [oracle_curve, *curves], [
        Difference(rule=a, minus=b, k=k, difference=found[a, "minus", b, str(place)])
        for a, b in ((votes.rules[i].label, votes.rules[j].label) for i, j in pairs)
        for place, k in enumerate(votes.sizes)
        if place > 0  # with one sample all rules answer alike, but for samples without a score
    ]


def _pairs(rules: Sequence[Rule]) -> Iterator[tuple[int, int]]:
    """Each rule against majority; weighted against best_of_n, and against each likelihood, by the same verifier."""
    for i, rule in enumerate(rules):
        if rule != MAJORITY:
            yield i, rules.index(MAJORITY)
        if rule.strategy is Strategy.WEIGHTED and rule.score not in OWN_LIKELIHOODS:
            yield i, rules.index(Rule(Strategy.BEST_OF_N, rule.score))
            for j, other in enumerate(rules):
                if other.score in OWN_LIKELIHOODS:
                    yield i, j


def _points(votes: Votes, rule: Rule | None, found: dict[tuple[str, ...], Estimate]) -> list[Point]:
    label = "oracle" if rule is None else rule.label
    verifies = rule is not None and rule.score is not None and rule.score not in OWN_LIKELIHOODS
    closed = rule is None or rule.strategy is Strategy.BEST_OF_N
    none = Estimate.of(0.0, 0.0, 0.0)
    return [
        Point(
            k=k,
            accuracy=found[label, str(place)],
            oracle_gap=none if rule is None else found[label, "gap", str(place)],
            generator_tokens=rounded(float(votes.generator[:, place].mean())),
            verifier_tokens=rounded(float(votes.verifier[:, place].mean())) if verifies else 0.0,
            exact=closed or is_exact(votes.n, k),
        )
        for place, k in enumerate(votes.sizes)
    ]

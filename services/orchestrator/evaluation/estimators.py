"""What a rule would answer with k of the N samples: expectations over random k-subsets. Pure: numpy and scipy.

`pass@k` is the unbiased 1 - C(N-c, k) / C(N, k) (Chen et al., 2021, arXiv 2107.03374, equation 1). `best_of_n@k` has
a closed form by order statistics. Votes are enumerated where there are few k-subsets, else averaged over seeded draws;
a draw is an order of the samples, whose first k are the subset, and every rule votes on the same draws.

The rules are those of `services.core.voting.select`, ties included. Majority sees no scores, as in the service, which
asks no verifier for it: its ties go to the lower index. Ties that the verifier broke would make majority@2 a best_of_2.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.sparse import csr_array

from services.core.voting import Strategy
from services.orchestrator.evaluation.arrays import Bools, Floats, Ints, ProblemArrays

# So many subsets cost no more than the draws of a large problem: every k of up to 13 samples, pairs of 64.
MOST_ENUMERATED = 2048


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """How an answer is chosen: a strategy, and the name of the scores that it weighs by (None for majority)."""

    strategy: Strategy
    score: str | None = None

    @property
    def label(self) -> str:
        return self.strategy.value if self.score is None else f"{self.strategy.value} ({self.score})"


@lru_cache(maxsize=256)
def absence(n: int, k: int) -> Floats:
    """(n + 1,): the chance that a random k-subset of n samples holds none of m given ones, C(n-m, k) / C(n, k)."""
    return np.array([math.comb(n - m, k) / math.comb(n, k) for m in range(n + 1)])


def pass_at(problem: ProblemArrays, k: int) -> float:
    """The chance that k samples hold a right answer."""
    return float(1.0 - absence(problem.n, k)[np.count_nonzero(problem.right)])


def generator_tokens(problem: ProblemArrays, k: int) -> float:
    """Tokens that k samples take, expected."""
    return k * float(problem.tokens.mean())


def verifier_tokens(problem: ProblemArrays, k: int) -> float:
    """Tokens that scoring k samples takes, expected: equal texts are scored once."""
    _, first, copies = np.unique(problem.texts, return_index=True, return_counts=True)
    return float(((1.0 - absence(problem.n, k)[copies]) * problem.verifier_tokens[first]).sum())


def is_exact(n: int, k: int) -> bool:
    """Whether votes on k of n samples are enumerated; closed forms always are exact."""
    return math.comb(n, k) <= MOST_ENUMERATED


def accuracies(problem: ProblemArrays, rules: Sequence[Rule], sizes: Sequence[int], draws: int, seed: int) -> Floats:
    """(rules, sizes): how probably each rule answers right with a random k-subset, for each k of `sizes`.

    The draws depend on (`seed`, problem id, N) alone, so that problems may come in any order. A subset in which
    nobody has a vote is answered wrong.
    """
    found = np.zeros((len(rules), len(sizes)))
    subsets = _Subsets(problem, draws, seed)
    votes = [i for i, rule in enumerate(rules) if rule.strategy is not Strategy.BEST_OF_N]
    ballots = _Ballots([_voters(problem, rules[i]) for i in votes], problem)
    for place, k in enumerate(sizes):
        for i, rule in enumerate(rules):
            if rule.strategy is Strategy.BEST_OF_N:
                found[i, place] = _best_of_n(problem, _voters(problem, rule).order, k)
        if votes:
            found[votes, place] = ballots.right(subsets.of(k)).mean(axis=1)
    return found


@dataclass(frozen=True, slots=True)
class _Voters:
    """Who votes under a rule, the best first (`order`: sample indices), and (N,) the weights of all samples."""

    order: Ints
    weights: Floats


def _voters(problem: ProblemArrays, rule: Rule) -> _Voters:
    weights = np.ones(problem.n) if rule.score is None else problem.scores[rule.score]
    voting = np.flatnonzero((problem.classes >= 0) & ~np.isnan(weights))
    return _Voters(voting[np.argsort(-weights[voting], kind="stable")], weights)


def _best_of_n(problem: ProblemArrays, order: Ints, k: int) -> float:
    """The voter of rank r is the best of k when it is among them and none of the r before it is."""
    none_of = absence(problem.n, k)
    first = none_of[: len(order)] - none_of[1 : len(order) + 1]
    return float(first[problem.right[order]].sum())


class _Subsets:
    """The k-subsets that are voted on, as (N, subsets) of 0.0 and 1.0."""

    def __init__(self, problem: ProblemArrays, draws: int, seed: int) -> None:
        self._n, self._draws = problem.n, draws
        self._name = f"e2h-draws:{seed}:{problem.n}:{problem.id}"
        self._places: Ints | None = None

    def of(self, k: int) -> Floats:
        if is_exact(self._n, k):
            return _enumerated(self._n, k)
        if self._places is None:
            digest = hashlib.sha256(self._name.encode()).digest()
            keys = np.random.default_rng(int.from_bytes(digest[:16], "big")).random((self._draws, self._n))
            # The place of each sample in its draw's order: (N, draws).
            self._places = np.ascontiguousarray(keys.argsort(axis=1).argsort(axis=1).T)
        return (self._places < k).astype(np.float64)


@lru_cache(maxsize=32)
def _enumerated(n: int, k: int) -> Floats:
    members = np.array(list(combinations(range(n), k)))
    held = np.zeros((len(members), n))
    np.put_along_axis(held, members, 1.0, axis=1)
    return np.ascontiguousarray(held.T)


class _Ballots:
    """Weighted votes of several rules at once: one sparse product sums every class of every rule over all subsets."""

    def __init__(self, rules: Sequence[_Voters], problem: ProblemArrays) -> None:
        self._rules, self._classes = rules, problem.classes
        self._count = int(problem.classes.max(initial=-1)) + 1
        self._right = np.zeros(self._count, dtype=np.bool_)
        self._right[problem.classes[problem.classes >= 0]] = problem.right[problem.classes >= 0]
        self._sums = _class_sums(rules, problem, self._count)

    def right(self, held: Floats) -> Bools:
        """(rules, subsets): whether the vote of each is right."""
        if self._count == 0:
            return np.zeros((len(self._rules), held.shape[1]), dtype=np.bool_)
        strengths = (self._sums @ held).reshape(len(self._rules), self._count, -1)
        top = strengths.max(axis=1)
        leading = strengths == top[:, None, :]
        winners: Bools = self._right[leading.argmax(axis=1)]
        # Without weight a class may lead that has no voter: those cases are told apart voter by voter, like ties.
        unclear = (np.count_nonzero(leading, axis=1) > 1) | (top <= 0.0)
        for rule, voters in enumerate(self._rules):
            (cases,) = np.nonzero(unclear[rule])
            if len(cases):
                winners[rule, cases] = self._untied(voters.order, leading[rule][:, cases], held[:, cases])
        return winners

    def _untied(self, order: Ints, leading: Bools, held: Floats) -> Bools:
        """The class of the best voter of a leading class: the higher best score, then the lower index."""
        if not len(order):
            return np.zeros(held.shape[1], dtype=np.bool_)
        able = leading[self._classes[order]] & (held[order] > 0.0)
        best = self._classes[order][able.argmax(axis=0)]
        return np.asarray(self._right[best] & able.any(axis=0))


def _class_sums(rules: Sequence[_Voters], problem: ProblemArrays, count: int) -> csr_array:
    """(rules x classes, N): row c of a rule holds the weights of the voters of class c.

    A row's members stand in the order of their scores, and are summed in it: classes of equal scores have equal sums,
    to the last bit, whatever their indices.
    """
    columns, data, lengths = [], [], []
    for voters in rules:
        by_class = voters.order[np.argsort(problem.classes[voters.order], kind="stable")]
        columns.append(by_class)
        data.append(voters.weights[by_class])
        lengths.append(np.bincount(problem.classes[by_class], minlength=count))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]) if rules else np.zeros(1, dtype=np.int64)
    shape = (len(rules) * count, problem.n)
    if not rules:
        return csr_array(shape)
    return csr_array((np.concatenate(data), np.concatenate(columns), starts), shape=shape)

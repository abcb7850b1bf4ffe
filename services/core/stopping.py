"""When sampling may end before the last sample: no remaining sample can, or will probably, change the winner. Pure.

* lossless: the leader stays ahead even if every remaining sample voted for the strongest rival, or for an answer that
  nobody gave yet, with weight 1. The winning class is that of the full run, whatever the remaining samples say.
* confident: the posterior probability that the leader stays ahead reaches `CONFIDENCE`.

best_of_n has no such moment: the last sample may have the highest score.
"""

import math
from collections import Counter
from collections.abc import Collection
from enum import StrEnum

from services.core.voting import AnswerClass, Selection, Strategy

CONFIDENCE = 0.95
# Weights are rounded sums: a lead of less than their rounding is none.
_ROUNDING = 1e-9


class EarlyStop(StrEnum):
    """What must hold for the sampling to end early."""

    LOSSLESS = "lossless"
    CONFIDENT = "confident"


def can_stop_early(strategy: Strategy) -> bool:
    """Whether a vote can be decided before its last sample."""
    return strategy is not Strategy.BEST_OF_N


def may_stop(rule: EarlyStop, selection: Selection, n: int, decided: Collection[int]) -> bool:
    """Whether the sampling may end, `decided` of the samples 0..n-1 having their final part in `selection`.

    A sample that was drawn and is not scored yet is not decided. False when nothing remains that could be saved.
    """
    known = frozenset(decided)
    remaining = n - len(known)
    if remaining <= 0 or selection.winner is None or not can_stop_early(selection.strategy):
        return False
    if rule is EarlyStop.LOSSLESS:
        lowest_open = next(index for index in range(n) if index not in known)
        return is_settled(selection, remaining, lowest_open)
    return probability_ahead(selection, remaining, len(known)) >= CONFIDENCE


def is_settled(selection: Selection, remaining: int, lowest_open: int) -> bool:
    """Whether no `remaining` samples, the first of which has the index `lowest_open`, can change the winning class."""
    leader, *rivals = selection.classes
    if selection.strategy is Strategy.WEIGHTED:
        return leader.weight - max((r.weight for r in rivals), default=0.0) > remaining + _ROUNDING
    lead = leader.votes - max((r.votes for r in rivals), default=0) - remaining
    return lead > 0 or (lead == 0 and _wins_ties(leader, rivals, remaining, lowest_open))


def _wins_ties(leader: AnswerClass, rivals: Collection[AnswerClass], remaining: int, lowest_open: int) -> bool:
    """Whether the leader of a majority is before everyone who could draw level: ties go to the lower index.

    A remaining sample may have the lower index, and where scores are known they come before the index.
    """
    level = [r for r in rivals if r.votes + remaining == leader.votes]
    if any(c.best_score is not None for c in (leader, *level)):
        return False
    return leader.members[0] < min([lowest_open, *(r.members[0] for r in level)])


def probability_ahead(selection: Selection, remaining: int, seen: int) -> float:
    """A lower bound of the posterior probability that the leader is still ahead after `remaining` more samples.

    The model is that of adaptive consistency (Aggarwal et al., 2023, arXiv 2305.11860): leader against rival, a Beta
    posterior under the uniform prior Beta(1, 1). It differs in three things. The horizon is finite: of h further votes
    the rival gets X ~ BetaBinomial(h, rival + 1, leader + 1), and draws level when X >= (lead + h) / 2. Every rival is
    counted, an answer that nobody gave yet among them: their probabilities are added (the union bound). And a sample
    of score s counts as s of a vote, so that one model serves both strategies; h is then `remaining` times the mean
    weight of a sample so far (`seen` of them), to which one of weight 1 is added.

    Samples are taken as exchangeable, which they are not quite: short ones finish first.
    """
    leader, *rivals = (_votes(c, selection.strategy) for c in selection.classes)
    mean = (1.0 + leader + math.fsum(rivals)) / (1 + seen)
    horizon = math.ceil(remaining * min(1.0, mean))
    overtaken = 0.0
    for rival, count in sorted(Counter([*rivals, 0.0]).items(), reverse=True):
        overtaken += count * _draws_level(leader, rival, horizon)
        if overtaken >= 1.0:
            return 0.0
    return 1.0 - overtaken


def _votes(answers: AnswerClass, strategy: Strategy) -> float:
    return answers.weight if strategy is Strategy.WEIGHTED else float(answers.votes)


def _draws_level(leader: float, rival: float, horizon: int) -> float:
    """P(X >= (leader - rival + horizon) / 2) of X ~ BetaBinomial(horizon, rival + 1, leader + 1)."""
    a, b = rival + 1.0, leader + 1.0
    first = math.ceil((leader - rival + horizon) / 2)
    if first > horizon:
        return 0.0
    ways = math.lgamma(horizon + 1) - math.lgamma(first + 1) - math.lgamma(horizon - first + 1)
    term = math.exp(ways + _log_beta(first + a, horizon - first + b) - _log_beta(a, b))
    total = term
    for x in range(first, horizon):
        term *= (horizon - x) / (x + 1) * (x + a) / (horizon - x - 1 + b)
        total += term
    return total


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

"""Where the reward of a sampled solution stands: at its steps, or at its end. Pure.

With placement `steps`, step k is paid what it changes of the aggregate, agg(p_1..p_k) - agg(p_1..p_k-1), from 1 before
the first: a potential-based shaping (Ng et al., 1999) whose sum over the solution is agg(p_1..p_K) - 1 whatever the
number of steps, so that no solution gains by having more of them. With placement `end`, that sum is paid at the end.
Under `min` a step is paid nothing unless it is the worst so far; under `prod` each pays for its own doubt.

A right answer, where gold counts, is paid `outcome_weight` at the end. A solution without a score (cut off, no step) is
paid what the worst score would be, -1, and nothing for its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from services.core.aggregation import Aggregation, aggregate
from training.policy.scored import Scored

Placement = Literal["steps", "end"]
SHAPED = (Aggregation.PROD, Aggregation.MIN)  # what is 1 of nothing and changes step by step
_UNSCORED = -1.0


def step_changes(scores: Sequence[float], how: Aggregation) -> list[float]:
    """What each step changes of the aggregate, beginning from 1."""
    before, changes = 1.0, []
    for k in range(1, len(scores) + 1):
        now = aggregate(scores[:k], None, how)
        if now is None:
            raise ValueError("a step score is no probability")
        changes.append(now - before)
        before = now
    return changes


def token_rewards(
    sample: Scored,
    ends: Sequence[int],
    length: int,
    how: Aggregation,
    *,
    placement: Placement,
    process_weight: float,
    outcome_weight: float,
) -> list[float]:
    """One reward a token of a solution of `length` tokens; `ends` are the places of its steps' last tokens.

    Where `ends` are not as many as the step scores (unusual blank lines), the steps are paid at the end.
    """
    rewards = [0.0] * length
    if sample.score is None:
        rewards[-1] = process_weight * _UNSCORED
        return rewards
    if placement == "steps" and how in SHAPED and len(ends) == len(sample.steps):
        for end, change in zip(ends, step_changes(sample.steps, how), strict=True):
            rewards[end] += process_weight * change
    else:
        rewards[-1] += process_weight * (sample.score - 1.0)
    rewards[-1] += outcome_weight * bool(sample.correct)
    return rewards

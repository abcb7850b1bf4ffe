"""From rewards to advantages: GAE over a value model, or a group baseline without one. Pure tensors.

All tensors are [batch, T] over the tokens of solutions, right-padded; `mask` is 1 on tokens and 0 on padding.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """`(advantages, returns)` by generalised advantage estimation (Schulman et al., 2016).

    `values[:, t]` is that of the state before token t; after the last token the value is 0.
    """
    advantages = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        last = (delta + gamma * lam * last) * mask[:, t]
        following = values[:, t] * mask[:, t]
        advantages[:, t] = last
    return advantages, (advantages + values) * mask


def returns_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """The discounted sum of the rewards from each token on."""
    returns = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        last = (rewards[:, t] + gamma * last) * mask[:, t]
        returns[:, t] = last
    return returns


def group_advantages(rewards: Tensor, mask: Tensor, groups: Tensor, gamma: float) -> Tensor:
    """Returns-to-go less the mean total return of the *other* samples of the same problem.

    The baseline depends on no token of the sample itself, so the gradient keeps its expectation (as in RLOO, Ahmadian
    et al., 2024); a sample without others has an advantage of 0. `groups` is [batch], equal for samples of a problem.
    """
    returns = returns_to_go(rewards, mask, gamma)
    totals = returns[:, 0]
    same = (groups[:, None] == groups[None, :]).float()
    others = same.sum(1) - 1
    baseline = (same @ totals - totals) / others.clamp(min=1)
    advantages: Tensor = (returns - baseline[:, None]) * mask * (others > 0)[:, None]
    return advantages


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the tokens of the batch."""
    count = mask.sum()
    mean = (values * mask).sum() / count
    variance = ((values - mean) ** 2 * mask).sum() / count
    whitened: Tensor = (values - mean) / (variance + 1e-8).sqrt() * mask
    return whitened

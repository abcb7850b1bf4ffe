"""PPO's two losses (Schulman et al., 2017), over the tokens of solutions. Pure tensors, shapes as in `advantages`."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_loss(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """`(loss, clipped)`: the clipped surrogate, averaged over tokens, and the share of tokens that the clip holds."""
    ratio = (logprobs - old).exp()
    plain = -advantages * ratio
    held = -advantages * ratio.clamp(1.0 - clip, 1.0 + clip)
    count = mask.sum()
    loss = (torch.maximum(plain, held) * mask).sum() / count
    clipped = ((held > plain).float() * mask).sum() / count
    return loss, clipped


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error, averaged over tokens; beyond `clip` of the old value, as it stood there."""
    held = old + (values - old).clamp(-clip, clip)
    errors = torch.maximum((values - returns) ** 2, (held - returns) ** 2)
    loss: Tensor = 0.5 * (errors * mask).sum() / mask.sum()
    return loss


def kl_estimate(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Per token, of KL(policy || reference) where the token was sampled from the policy: log p - log q."""
    return (logprobs - reference) * mask

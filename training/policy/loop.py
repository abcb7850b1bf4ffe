"""PPO's loop over one policy: sample, score, pay, estimate, update. Knows models and pieces, no config file."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.policy.advantages import gae, group_advantages, whiten
from training.policy.episodes import Episode, Sequences, token_logprobs, token_values
from training.policy.losses import kl_estimate, policy_loss, value_loss
from training.recipes.fitting import pad


@dataclass(frozen=True)
class PpoNumbers:
    """What the loop is tuned by; meanings and ranges in `training.ppo.PpoRecipe`."""

    batch_size: int
    epochs: int
    clip: float
    value_clip: float
    gamma: float
    lam: float
    kl_weight: float
    temperature: float
    max_grad_norm: float


@dataclass(frozen=True)
class Actors:
    """Policy, its optimizer, the frozen reference (None: the policy without its adapters), and the value model."""

    policy: Any
    optimizer: Optimizer
    reference: Any | None
    value: Any | None = None
    value_optimizer: Optimizer | None = None
    bfloat16: bool = False

    @property
    def device(self) -> torch.device:
        """Where all of them are."""
        found: torch.device = next(self.policy.parameters()).device
        return found

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 where the run computes in it."""
        return torch.autocast("cuda", torch.bfloat16) if self.bfloat16 else contextlib.nullcontext()


@dataclass(frozen=True)
class Prepared:
    """One episode with all that its updates need; tensors [S] over its tokens."""

    episode: Episode
    old: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


@torch.no_grad()
def prepare(
    actors: Actors, numbers: PpoNumbers, episodes: Sequence[Episode], rewards: Sequence[list[float]], pad_id: int
) -> tuple[list[Prepared], float]:
    """Episodes with advantages, and the mean over episodes of the KL to the reference, in nats."""
    old, reference, values = [], [], []
    for first in range(0, len(episodes), numbers.batch_size):
        batch = Sequences.of(episodes[first : first + numbers.batch_size], pad_id, actors.device)
        with actors.autocast():
            old += _rows(token_logprobs(actors.policy.eval(), batch, numbers.temperature), batch.mask)
            with _as_reference(actors) as model:
                reference += _rows(token_logprobs(model, batch, numbers.temperature), batch.mask)
            found = torch.zeros_like(batch.mask) if actors.value is None else token_values(actors.value.eval(), batch)
        values += _rows(found, batch.mask)
    mask = pad([[1.0] * len(row) for row in old], 0.0, torch.float32)
    logprobs, known, valued, paid = (
        pad([list(map(float, row)) for row in rows], 0.0, torch.float32) for rows in (old, reference, values, rewards)
    )
    kl = kl_estimate(logprobs, known, mask)
    shaped = paid - numbers.kl_weight * kl
    if actors.value is None:
        groups = torch.tensor([one.group for one in episodes])
        advantages, returns = group_advantages(shaped, mask, groups, numbers.gamma), torch.zeros_like(mask)
    else:
        advantages, returns = gae(shaped, valued, mask, numbers.gamma, numbers.lam)
    advantages = whiten(advantages, mask)
    prepared = [
        Prepared(one, logprobs[i, :n], valued[i, :n], advantages[i, :n], returns[i, :n])
        for i, one in enumerate(episodes)
        for n in [len(one.written.solution)]
    ]
    return prepared, float(kl.sum(1).mean())


def update(
    actors: Actors, numbers: PpoNumbers, prepared: Sequence[Prepared], pad_id: int, seed: int
) -> dict[str, float]:
    """`epochs` passes over the episodes in shuffled minibatches; means of what was seen."""
    rng = random.Random(seed)
    seen: list[dict[str, float]] = []
    for _ in range(numbers.epochs):
        order = list(prepared)
        rng.shuffle(order)
        for first in range(0, len(order), numbers.batch_size):
            seen.append(_minibatch(actors, numbers, order[first : first + numbers.batch_size], pad_id))
    return {name: sum(one[name] for one in seen) / len(seen) for name in seen[0]}


def _minibatch(actors: Actors, numbers: PpoNumbers, chosen: Sequence[Prepared], pad_id: int) -> dict[str, float]:
    batch = Sequences.of([one.episode for one in chosen], pad_id, actors.device)
    old, old_values, advantages, returns = (
        pad([getattr(one, name).tolist() for one in chosen], 0.0, torch.float32).to(actors.device)
        for name in ("old", "old_values", "advantages", "returns")
    )
    with actors.autocast():
        logprobs = token_logprobs(actors.policy.train(), batch, numbers.temperature)
    loss, clipped = policy_loss(logprobs, old, advantages, batch.mask, numbers.clip)
    norm = _step(loss, actors.policy, actors.optimizer, numbers.max_grad_norm)
    told = {"policy_loss": loss.item(), "clipped": clipped.item(), "grad_norm": norm}
    if actors.value is not None and actors.value_optimizer is not None:
        with actors.autocast():
            values = token_values(actors.value.train(), batch)
        lost = value_loss(values, old_values, returns, batch.mask, numbers.value_clip)
        _step(lost, actors.value, actors.value_optimizer, numbers.max_grad_norm)
        told["value_loss"] = lost.item()
    return told


def _step(loss: Tensor, model: Any, optimizer: Optimizer, max_grad_norm: float) -> float:
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_grad_norm)
    optimizer.step()
    return float(norm)


@contextlib.contextmanager
def _as_reference(actors: Actors) -> Iterator[Any]:
    if actors.reference is not None:
        yield actors.reference
        return
    with actors.policy.disable_adapter():
        yield actors.policy


def _rows(values: Tensor, mask: Tensor) -> list[list[float]]:
    """The rows without their padding."""
    lengths = mask.sum(1).int().tolist()
    return [row[:n] for row, n in zip(values.float().tolist(), lengths, strict=True)]

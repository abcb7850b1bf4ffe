"""Sampled solutions as tensors, and what the models say of their tokens. No reward, no update.

The behaviour policy's log-probabilities come from a forward pass before the first update, over ids that are built from
the sampled text. A text whose sampled tokens were others than its encoding is so treated as if it had been encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from services.core.steps import ANSWER_HEADER
from training.policy.scored import Scored
from training.recipes.fitting import pad
from training.recipes.writing import SolutionEncoder, Written


@dataclass(frozen=True)
class Episode:
    """One sample: its ids, the places of its steps' ends within the solution, and its problem's number."""

    sample: Scored
    written: Written
    ends: list[int]
    group: int


def episode(encoder: SolutionEncoder, sample: Scored, group: int) -> Episode | None:
    """None for a sample without a token: nothing of it can be learned."""
    text = sample.text.strip()
    written = encoder.write(sample.problem.problem, text, ended=sample.finished)
    if not written.solution:
        return None
    blocks = [part.strip() for part in text.split("\n\n") if part.strip()]
    steps = blocks.index(ANSWER_HEADER) if ANSWER_HEADER in blocks else len(blocks)
    return Episode(sample, written, encoder.step_ends(text)[:steps], group)


@dataclass(frozen=True)
class Sequences:
    """A batch of episodes: `ids`, `attention` [batch, T]; `tokens`, `mask` [batch, S] over the solutions alone."""

    ids: Tensor
    attention: Tensor
    tokens: Tensor
    mask: Tensor
    prompts: Tensor  # [batch], the length of each prompt

    @classmethod
    def of(cls, episodes: Sequence[Episode], pad_id: int, device: torch.device) -> Sequences:
        """Right-padded."""
        rows = [one.written for one in episodes]
        return cls(
            ids=pad([row.ids for row in rows], pad_id).to(device),
            attention=pad([[1] * len(row) for row in rows], 0).to(device),
            tokens=pad([row.solution for row in rows], pad_id).to(device),
            mask=pad([[1.0] * len(row.solution) for row in rows], 0.0, torch.float32).to(device),
            prompts=torch.tensor([len(row.prompt) for row in rows], device=device),
        )

    def before(self, values: Tensor) -> Tensor:
        """Of [batch, T, ...] per position: [batch, S, ...] at the position before each token of the solution."""
        places = self.prompts[:, None] - 1 + torch.arange(self.tokens.shape[1], device=values.device)
        places = places.clamp(max=values.shape[1] - 1)
        rows = torch.arange(len(places), device=values.device)[:, None]
        return values[rows, places]


def token_logprobs(model: Any, batch: Sequences, temperature: float) -> Tensor:
    """[batch, S] log-probabilities of the solutions' tokens at the temperature they are sampled at; 0 on padding."""
    logits = model(input_ids=batch.ids, attention_mask=batch.attention).logits
    scaled = batch.before(logits).float() / temperature
    chosen = scaled.log_softmax(-1).gather(-1, batch.tokens[..., None])[..., 0]
    result: Tensor = chosen * batch.mask
    return result


def token_values(model: Any, batch: Sequences) -> Tensor:
    """[batch, S] values of the states before the solutions' tokens; 0 on padding."""
    values = model(input_ids=batch.ids, attention_mask=batch.attention).logits[..., 0]
    result: Tensor = batch.before(values).float() * batch.mask
    return result

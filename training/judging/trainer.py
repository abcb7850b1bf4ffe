"""The reward model's loss in transformers' Trainer: BCE with logits over labelled tokens. No data, no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Trainer

from training.judging.encoding import NO_LABEL, Labelled
from training.recipes.fitting import pad


def log_odds(logits: Tensor) -> Tensor:
    """[batch, T] log-odds that a step is right, from [batch, T, 1 or 2] outputs; of two, index 1 says right."""
    return logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]


def labelled_loss(scores: Tensor, labels: Tensor, weights: Tensor, count: Tensor | int) -> Tensor:
    """Binary cross-entropy of [batch, T] log-odds at labelled tokens: the weighted sum over `count` tokens.

    Labels are probabilities (soft ones from rollouts as well); `NO_LABEL` is left out.
    """
    chosen = labels != NO_LABEL
    losses = functional.binary_cross_entropy_with_logits(scores[chosen].float(), labels[chosen], reduction="none")
    return (losses * weights[chosen]).sum() / count


def collate_labelled(rows: Sequence[Labelled], pad_id: int) -> dict[str, Tensor]:
    """[batch, longest] tensors; padding stands on the right, where causal attention never looks."""
    return {
        "input_ids": pad([row.ids for row in rows], pad_id),
        "attention_mask": pad([[1] * len(row.ids) for row in rows], 0),
        "labels": pad([row.labels for row in rows], NO_LABEL, torch.float32),
        "weights": pad([row.weights for row in rows], 0.0, torch.float32),
    }


class RewardTrainer(Trainer):
    """Trainer with `labelled_loss`; the mean is over the labelled tokens of the whole step, however it is split."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.model_accepts_loss_kwargs = True  # so that Trainer counts labels and does not divide once more

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """The loss of one micro-batch."""
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        labels = inputs["labels"]
        count = (labels != NO_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
        loss = labelled_loss(log_odds(outputs.logits), labels, inputs["weights"], count)
        return (loss, outputs) if return_outputs else loss

"""A trained reward model as the verifier service loads it, with golden scores for its self-test. No training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.core.contracts import VerifierKind
from services.verifier.families.base import Encoded
from training.data.records import LabelledSolution
from training.judging.encoding import FamilyName, Trainable
from training.judging.trainer import log_odds
from training.recipes.loading import merged, save_model


@torch.no_grad()
def plain_scores(model: Any, encoded: Encoded) -> list[float]:
    """The model's probabilities at the read-out rows of one solution: one plain forward, nothing of the service."""
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([encoded.ids], device=device)).logits
    scores: Tensor = torch.sigmoid(log_odds(logits)[0, list(encoded.rows)].float())
    return [float(score) for score in scores]


def golden_scores(model: Any, family: Trainable, solution: LabelledSolution) -> dict[str, Any]:
    """What `services.verifier.selftest` holds the served model to: a solution with this model's scores."""
    encoded = family.encode(solution.problem, solution.steps)
    scores = plain_scores(model, encoded)
    return {
        "problem": solution.problem,
        "steps": list(solution.steps),
        "scores": scores[: len(encoded.step_rows)],
        "outcome": None if encoded.outcome_row is None else scores[-1],
    }


def export_verifier(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    family: Trainable,
    name: FamilyName,
    kind: VerifierKind,
    golden: LabelledSolution,
    own: dict[str, Any],
) -> Any:
    """Write the model, adapters merged, and return it in float32 for comparison.

    `own` is what the family reads of its config beside name and kind (`eos_readout`, `separator`). Weights keep their
    dtype; golden scores are those of the saved weights in float32, which is what the self-test computes on a CPU.
    """
    model = merged(model).eval()
    dtype = next(model.parameters()).dtype
    model = model.to(dtype).float()
    model.config.e2h = {"family": name, "kind": kind, **own, "golden": golden_scores(model, family, golden)}
    save_model(model.to(dtype), tokenizer, folder)
    return model.float()

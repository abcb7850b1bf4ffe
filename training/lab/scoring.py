"""Scoring sampled solutions with a verifier folder, through the verifier service's own code. No training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.core.steps import split_steps
from services.verifier.families.base import Encoded
from services.verifier.loading import load_reward_model
from services.verifier.model import RawScores, RewardModel
from services.verifier.settings import VerifierSettings

BATCH_TOKENS = 8192  # padded tokens of one forward pass: about 0.2 GiB of activations


class Scorer:
    """A verifier folder, loaded once, on the CPU in float32."""

    def __init__(self, folder: Path) -> None:
        self.model: RewardModel = load_reward_model(VerifierSettings(model=str(folder), device="cpu", dtype="float32"))

    def score(self, question: str, texts: Sequence[str]) -> list[RawScores]:
        """The scores of several solutions of one question, in order; a text without a step scores nothing."""
        encoded = [self._encode(question, text) for text in texts]
        order = sorted((i for i, e in enumerate(encoded) if e is not None), key=lambda i: len(_ids(encoded[i])))
        scores = [RawScores((), None)] * len(texts)
        for batch in _batches(order, encoded):
            found = self.model.score([e for e in (encoded[i] for i in batch) if e is not None])
            for i, raw in zip(batch, found, strict=True):
                scores[i] = raw
        return scores

    def _encode(self, question: str, text: str) -> Encoded | None:
        steps = split_steps(text)
        if not steps or steps[0].startswith("# Answer"):
            return None
        return self.model.family.encode(question, steps)


def _ids(encoded: Encoded | None) -> tuple[int, ...]:
    return () if encoded is None else encoded.ids


def _batches(order: Sequence[int], encoded: Sequence[Encoded | None]) -> list[list[int]]:
    """Neighbours in length together, at most ``BATCH_TOKENS`` padded tokens each."""
    batches: list[list[int]] = []
    for i in order:
        width = len(_ids(encoded[i]))
        if batches and (len(batches[-1]) + 1) * width <= BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches

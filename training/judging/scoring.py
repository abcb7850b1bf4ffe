"""Scoring sampled solutions with a verifier folder, through the verifier service's own code. No training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.core.steps import split_steps
from services.verifier.batching import batches_of
from services.verifier.families.base import Encoded
from services.verifier.loading import load_reward_model
from services.verifier.model import RawScores, RewardModel
from services.verifier.settings import VerifierSettings

BATCH_TOKENS = 8192  # distinct tokens of one forward pass: about 0.2 GiB of activations


class Scorer:
    """A verifier folder, loaded once: on the CPU in float32, or as the service serves it on another device."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        # Without prefixes kept from earlier calls, whose last digits differ: a resumed run must score as the whole one.
        settings = VerifierSettings(model=str(folder), device=device, dtype="auto", prefix_cache_mib=0)
        self.model: RewardModel = load_reward_model(settings)

    def score(self, question: str, texts: Sequence[str]) -> list[RawScores]:
        """The scores of several solutions of one question, in order.

        A text without a step, or longer than the verifier's context, scores nothing.
        """
        encoded = {place: found for place, text in enumerate(texts) if (found := self._encode(question, text))}
        places = list(encoded)
        scores = [RawScores((), None)] * len(texts)
        for batch in batches_of([encoded[place].key for place in places], BATCH_TOKENS):
            chosen = [places[at] for at in batch]
            for place, raw in zip(chosen, self.model.score([encoded[one] for one in chosen]), strict=True):
                scores[place] = raw
        return scores

    def _encode(self, question: str, text: str) -> Encoded | None:
        steps = split_steps(text)
        if not steps or steps[0].startswith("# Answer"):
            return None
        encoded = self.model.family.encode(question, steps)
        return encoded if len(encoded.ids) <= self.model.context_length else None

"""Our verifier as one of the methods: loaded and called as the service does it."""

from pathlib import Path

from benchmarks.clock import Clock
from benchmarks.methods import Scored, Values
from benchmarks.workload import Level, Problem
from services.verifier.batching import batches_of
from services.verifier.loading import load_reward_model
from services.verifier.model import RawScores
from services.verifier.settings import VerifierSettings


class Trie:
    """Every problem through `RewardModel.score`, in the batches that the service's batcher would form.

    Nothing is kept from one problem to the next; within a beam search, prefixes are kept from level to level.
    """

    def __init__(self, directory: Path, dtype: str, device: str, *, compiled: bool = False) -> None:
        """Raises `ModelLoadError` when it is to be compiled and cannot be."""
        self.name = "ours, compiled" if compiled else "ours"
        settings = VerifierSettings.model_validate(
            {"model": str(directory), "dtype": dtype, "device": device, "compile": compiled}
        )
        self._model = load_reward_model(settings)
        self._budget = settings.batch_tokens(self._model.device_type)
        self._device = device

    def score(self, problem: Problem) -> Scored:
        self._model.forget()
        values: Values = []
        computed = 0
        with Clock(self._device) as clock:
            for level in problem.levels:
                scores = self._level(level)
                computed += sum(one.computed for one in scores)
                values.append([list(one.steps) for one in scores])
        return Scored(values, computed, clock.seconds, clock.busy)

    def _level(self, level: Level) -> list[RawScores]:
        found: dict[int, RawScores] = {}
        for batch in batches_of([encoded.key for encoded in level], self._budget):
            found.update(zip(batch, self._model.score([level[place] for place in batch]), strict=True))
        return [found[place] for place in range(len(level))]

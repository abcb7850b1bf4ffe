"""Our verifier as one of the methods: loaded and called as the service does it."""

from pathlib import Path

from benchmarks.clock import Clock
from benchmarks.methods import Scored, Values
from benchmarks.workload import Level, Problem
from services.verifier.batching import padded_tokens, take_batch
from services.verifier.loading import load_reward_model
from services.verifier.model import RawScores
from services.verifier.settings import VerifierSettings


class Trie:
    """Every problem through `RewardModel.score`, in the batches that the service's batcher would form."""

    name = "ours"

    def __init__(self, directory: Path, dtype: str, device: str) -> None:
        self._settings = VerifierSettings.model_validate({"model": str(directory), "dtype": dtype, "device": device})
        self._model = load_reward_model(self._settings)
        self._device = device

    def score(self, problem: Problem) -> Scored:
        computed = 0
        values: Values = []
        with Clock(self._device) as clock:
            for level in problem.levels:
                found: dict[int, RawScores] = {}
                for places in self._batches(level):
                    batch = [level[place] for place in places]
                    computed += padded_tokens([len(e.ids) for e in batch])
                    found.update(zip(places, self._model.score(batch), strict=True))
                values.append([list(found[place].steps) for place in range(len(level))])
        return Scored(values, computed, clock.seconds, clock.busy)

    def _batches(self, level: Level) -> list[list[int]]:
        waiting = list(range(len(level)))
        batches = []
        while waiting:
            lengths = [len(level[place].ids) for place in waiting]
            taken = [waiting[at] for at in take_batch(lengths, self._settings.max_batch_tokens)]
            batches.append(taken)
            waiting = [place for place in waiting if place not in taken]
        return batches

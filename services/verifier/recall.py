"""What of a batch was scored before: looked up and kept by content-addressed keys. Knows no redis and no torch.

A key is a digest of all that a score depends on: the checkpoint's files, the family and its version, the dtype of the
forward pass, the token ids and the rows at which scores are read.
"""

import asyncio
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.core.aggregation import is_probability
from services.core.errors import ItemTooLarge, ModelLoadError
from services.core.ports import KnownScores, ScoreCache
from services.verifier.families.base import Encoded

# What a checkpoint's scores depend on; a model card or a training log beside it is none of it.
_MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.jinja")


def model_digest(directory: Path) -> str:
    """sha256 over names and contents of the checkpoint's files. Blocking: reads all of the weights.

    Size and time of change would not do: a checkpoint that was trained on and saved in place has the same size, and
    copies of one model on several machines have different times. Raises `ModelLoadError` when a file cannot be read.
    """
    files = sorted({path for pattern in _MODEL_FILES for path in directory.glob(pattern) if path.is_file()})
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.name}\0{_file_digest(path)}\n".encode())
    return whole.hexdigest()


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelLoadError(f"{path.name} of the model cannot be read", "check its permissions") from error


class ScoreKeys:
    """Names the scores of one loaded model."""

    def __init__(self, *, model: str, family: str, version: int, dtype: str) -> None:
        """`model` is its `model_digest`."""
        self._identity = json.dumps([model, family, version, dtype]).encode()

    def key(self, encoded: Encoded) -> str:
        """The name of a solution's scores: 160 bits, hexadecimal."""
        outcome = -1 if encoded.outcome_row is None else encoded.outcome_row
        # Lengths go first, so that no ids can pass for rows.
        numbers = (len(self._identity), len(encoded.ids), *encoded.ids, *encoded.step_rows, outcome)
        packed = struct.pack(f"<{len(numbers)}q", *numbers)
        return hashlib.blake2b(self._identity + packed, digest_size=20).hexdigest()

    def all(self, batch: Sequence[Encoded]) -> list[str]:
        return [self.key(encoded) for encoded in batch]


@dataclass(frozen=True, slots=True)
class Recalled:
    """What is known of `batch`; None where it must be scored."""

    batch: Sequence[Encoded]
    keys: Sequence[str]
    known: Sequence[KnownScores | None]

    @property
    def missing(self) -> list[Encoded]:
        """What must be scored, in order."""
        return [encoded for encoded, scores in zip(self.batch, self.known, strict=True) if scores is None]

    def completed(self, scores: Sequence[KnownScores | ItemTooLarge]) -> list[tuple[KnownScores | ItemTooLarge, bool]]:
        """The scores of all of `batch`, given those of `missing`, each with whether it was known."""
        new = iter(scores)
        return [(next(new), False) if known is None else (known, True) for known in self.known]


class Recall:
    """Looks solutions up before they are scored, and keeps what was scored."""

    def __init__(self, cache: ScoreCache, keys: ScoreKeys) -> None:
        self._cache = cache
        self._keys = keys

    async def look_up(self, batch: Sequence[Encoded]) -> Recalled:
        """What the cache knows of `batch`; nothing when it fails."""
        # In a thread: a thousand long solutions are millions of ids.
        keys = await asyncio.to_thread(self._keys.all, batch)
        found = await self._cache.get(keys)
        known = [
            scores if scores is not None and _fits(encoded, scores) else None
            for encoded, scores in zip(batch, found, strict=True)
        ]
        return Recalled(batch, keys, known)

    async def keep(self, recalled: Recalled, scores: Sequence[KnownScores | ItemTooLarge]) -> None:
        """Hand the scores of `recalled.missing` to the cache, but for errors and what is no probability."""
        keys = [key for key, known in zip(recalled.keys, recalled.known, strict=True) if known is None]
        pairs = zip(keys, scores, strict=True)
        await self._cache.put({key: new for key, new in pairs if isinstance(new, KnownScores) and _is_sound(new)})


def nothing_known(batch: Sequence[Encoded]) -> Recalled:
    """What is known without a cache."""
    return Recalled(batch, [""] * len(batch), [None] * len(batch))


def _fits(encoded: Encoded, scores: KnownScores) -> bool:
    same_outcome = (scores.outcome is None) == (encoded.outcome_row is None)
    return same_outcome and len(scores.steps) == len(encoded.step_rows)


def _is_sound(scores: KnownScores) -> bool:
    return all(is_probability(p) for p in (*scores.steps, *([] if scores.outcome is None else [scores.outcome])))

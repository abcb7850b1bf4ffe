"""The weight files of a published checkpoint, safetensors or pickled, read as tensors and nothing else."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from services.core.errors import ModelLoadError
from services.verifier.tensors import INDEX

_INDEXES = (INDEX, "pytorch_model.bin.index.json")
_PATTERNS = ("*.safetensors", "pytorch_model*.bin")


def shards_of(source: Path) -> list[Path]:
    """The files that hold the weights: those of an index, else those found; safetensors before pickles."""
    for index in (source / name for name in _INDEXES):
        if index.is_file():
            return _indexed(index)
    for pattern in _PATTERNS:
        if found := sorted(source.glob(pattern)):
            return found
    raise ModelLoadError(
        f"model directory {source} has no weights", "expected *.safetensors or pytorch_model*.bin in it"
    )


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{index.name} is no index of shards", "download the model again") from error
    shards = [index.parent / name for name in names]
    if any(Path(name).name != name for name in names):
        raise ModelLoadError(f"{index.name} names files outside its directory", "do not use this checkpoint")
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise ModelLoadError(
            f"{len(missing)} of {len(shards)} shards are missing, the first is {missing[0]}", "download the rest"
        )
    return shards


def load_shard(shard: Path) -> dict[str, torch.Tensor]:
    """The tensors of a shard, mapped rather than read. Raises `ModelLoadError` for anything else in it."""
    try:
        if shard.suffix == ".safetensors":
            return load_file(shard)
        # The restricted unpickler knows tensors and containers; a callable in the file is refused, not called.
        loaded = torch.load(shard, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelLoadError(
            f"{shard.name} holds something else than tensors; nothing of it was run", "do not use this checkpoint"
        ) from error
    except Exception as error:  # a malformed file raises whatever its reader stumbles over
        raise ModelLoadError(
            f"{shard.name} cannot be read as tensors: {type(error).__name__}",
            "download it again; files of torch before 1.6 must be saved again with a newer torch",
        ) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in loaded.items()
    ):
        raise ModelLoadError(f"{shard.name} is no table of tensors", "save the model's state_dict by itself")
    for tensor in loaded.values():
        # Strides can make terabytes of a few bytes, and a copy of it is made later.
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ModelLoadError(f"{shard.name} has a tensor larger than its data", "do not use this checkpoint")
    return loaded


class Survey:
    """The tensors of shards that may not be safetensors: names and shapes kept, rows read again when asked."""

    def __init__(self, source: Path, shards: Sequence[Path]) -> None:
        self.directory = source
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, Path] = {}
        for shard in shards:
            for name, tensor in load_shard(shard).items():
                self.shapes[name] = tuple(tensor.shape)
                self._places[name] = shard

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str) -> torch.Tensor:
        return load_shard(self._places[name])[name]

    def rows(self, name: str, rows: Sequence[int]) -> torch.Tensor:
        return self.read(name)[list(rows)]

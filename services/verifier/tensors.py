"""The tensors of a checkpoint directory by name. Reads headers at once; a tensor, or some of its rows, when asked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from services.core.errors import ModelLoadError

INDEX = "model.safetensors.index.json"


class TensorSource(Protocol):
    """Named tensors of a checkpoint, read one at a time."""

    @property
    def directory(self) -> Path: ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def __contains__(self, name: str) -> bool: ...

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor."""
        ...

    def rows(self, name: str, rows: Sequence[int]) -> torch.Tensor:
        """Some rows of a matrix, [len(rows), columns], in their order."""
        ...


class Tensors:
    """What the safetensors shards of a directory hold."""

    def __init__(self, directory: Path) -> None:
        """Reads the header of every shard. Raises `ModelLoadError` for a broken or a missing shard."""
        self.directory = directory
        self._shards: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        _refuse_missing_shards(directory)
        for shard in sorted(directory.glob("*.safetensors")):
            self._read_header(shard)

    def __contains__(self, name: str) -> bool:
        return name in self._shards

    @property
    def shards(self) -> int:
        """How many files hold them."""
        return len(set(self._shards.values()))

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor."""
        return self._slice(name, None)

    def rows(self, name: str, rows: Sequence[int]) -> torch.Tensor:
        """Some rows of a matrix, [len(rows), columns], in their order; the rest of it is not read."""
        if any(not 0 <= row < self.shapes[name][0] for row in rows):
            raise ModelLoadError(
                f"the tensor {name} has {self.shapes[name][0]} rows, too few for the tokenizer",
                "put the tokenizer that the model was trained with beside it",
            )
        return torch.cat([self._slice(name, row) for row in rows])

    def _slice(self, name: str, row: int | None) -> torch.Tensor:
        with safe_open(self._shards[name], framework="pt") as shard:
            part = shard.get_slice(name)
            tensor: torch.Tensor = part[:] if row is None else part[row : row + 1]
            return tensor

    def _read_header(self, shard: Path) -> None:
        try:
            with safe_open(shard, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                    described = tensors.get_slice(name)
                    self._shards[name] = shard
                    self.shapes[name] = tuple(described.get_shape())
                    self.dtypes[name] = described.get_dtype()
        except (SafetensorError, OSError) as error:
            raise ModelLoadError(
                f"{shard.name} is no readable safetensors file", "download or save it again"
            ) from error


def _refuse_missing_shards(directory: Path) -> None:
    index = directory / INDEX
    if not index.is_file():
        return
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{INDEX} is no index of shards", "download or save the model again") from error
    missing = sorted(str(name) for name in named if not (directory / str(name)).is_file())
    if missing:
        raise ModelLoadError(
            f"{len(missing)} of {len(named)} shards are missing, the first is {missing[0]}", "download the rest"
        )

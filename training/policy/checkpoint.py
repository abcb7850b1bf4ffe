"""The state of a PPO run on disk: safetensors and JSON, no pickles. Appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

_STATE = "state.json"


def save_checkpoint(folder: Path, iteration: int, parts: Mapping[str, tuple[Any, Optimizer]]) -> None:
    """Trained parameters and optimizer state of each part, after `iteration` iterations."""
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, (model, optimizer) in parts.items():
        save_file(_trained(model), work / f"{name}.safetensors")
        save_file(_moments(model, optimizer), work / f"{name}-optimizer.safetensors")
    (work / _STATE).write_text(json.dumps({"iteration": iteration}) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)


def load_checkpoint(folder: Path, parts: Mapping[str, tuple[Any, Optimizer]]) -> int:
    """Put the state back; the number of finished iterations, 0 without a checkpoint."""
    if not (folder / _STATE).is_file():
        return 0
    for name, (model, optimizer) in parts.items():
        saved = load_file(folder / f"{name}.safetensors")
        moments = load_file(folder / f"{name}-optimizer.safetensors")
        for key, parameter in _named(model).items():
            with torch.no_grad():
                parameter.copy_(saved[key])
            found = {k.rpartition("/")[2]: v for k, v in moments.items() if k.rpartition("/")[0] == key}
            if found:
                optimizer.state[parameter] = {
                    k: v.clone() if k == "step" else v.to(parameter.device).clone() for k, v in found.items()
                }
    return int(json.loads((folder / _STATE).read_text(encoding="utf-8"))["iteration"])


def _named(model: Any) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _trained(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().cpu().contiguous().clone() for name, p in _named(model).items()}


def _moments(model: Any, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value.detach().cpu().contiguous().clone()
        for name, parameter in _named(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }

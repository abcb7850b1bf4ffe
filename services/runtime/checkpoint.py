"""Whether a model directory can be served at all, said before a model library is asked. Reads files, loads nothing."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from services.core.errors import ModelLoadError


def looks_local(model: str) -> bool:
    """A path rather than a hub id (`owner/name`): it exists, is absolute or relative by dots, or has not one slash."""
    return Path(model).exists() or model.startswith((".", "/", "~", "models/")) or model.count("/") != 1


def check_model_directory(model: str, implemented: Collection[str] = ()) -> dict[str, Any]:
    """The model's config.json. Raises `ModelLoadError` with the mend for what is missing or broken.

    `implemented` names architectures whose own code on the hub is not needed, because the caller has its own: for
    these alone an `auto_map` is no refusal; it is dropped from what is returned.
    """
    path = Path(model).expanduser()
    if not path.is_dir():
        raise ModelLoadError(
            f"model directory {model} does not exist", "check the path, or run `make lab` to train the demo pair"
        )
    if not any(path.glob("*.safetensors")):
        raise ModelLoadError(
            f"model directory {model} has no safetensors weights",
            "save the model with safetensors (`e2h verifier convert IN OUT` does it for a reward model); pickled "
            "weights (.bin, .pt) are never loaded",
        )
    if not (path / "tokenizer.json").is_file():
        raise ModelLoadError(f"model directory {model} has no tokenizer.json", "save the tokenizer beside the model")
    return without_remote_code(read_config(model), model, implemented)


def without_remote_code(config: dict[str, Any], model: str, implemented: Collection[str] = ()) -> dict[str, Any]:
    """The config without its `auto_map`, which only an implemented architecture may have (`check_model_directory`)."""
    if "auto_map" in config and not set(config.get("architectures") or [""]) <= set(implemented):
        raise ModelLoadError(
            f"the model in {model} wants to run its own code (auto_map)",
            "remote code is never run; use a checkpoint of an architecture that transformers ships",
        )
    return {entry: value for entry, value in config.items() if entry != "auto_map"}


def check_vocabulary(tokenizer_size: int, embedding_rows: int, model: str) -> None:
    """Refuse a tokenizer that can name ids which the embedding does not have."""
    if tokenizer_size > embedding_rows:
        raise ModelLoadError(
            f"the tokenizer of {model} has {tokenizer_size} tokens, its embedding {embedding_rows}",
            "put the tokenizer that the model was trained with beside it",
        )


def read_config(model: str) -> dict[str, Any]:
    """The config.json of a model directory as it is. Raises `ModelLoadError` when it is none."""
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise ModelLoadError(f"model directory {model} has no readable config.json", "download or save the model again")
    return config

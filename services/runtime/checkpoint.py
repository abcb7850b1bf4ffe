"""Whether a model directory can be served at all, said before a model library is asked. Reads files, loads nothing."""

import json
from pathlib import Path
from typing import Any

from services.core.errors import ModelLoadError


def looks_local(model: str) -> bool:
    """A path rather than a hub id (`owner/name`): it exists, is absolute or relative by dots, or has not one slash."""
    return Path(model).exists() or model.startswith((".", "/", "~", "models/")) or model.count("/") != 1


def check_model_directory(model: str) -> dict[str, Any]:
    """The model's config.json. Raises `ModelLoadError` with the mend for what is missing or broken."""
    path = Path(model).expanduser()
    if not path.is_dir():
        raise ModelLoadError(
            f"model directory {model} does not exist", "check the path, or run `make lab` to train the demo pair"
        )
    if not any(path.glob("*.safetensors")):
        raise ModelLoadError(
            f"model directory {model} has no safetensors weights",
            "save the model with safetensors; pickled weights (.bin, .pt) are never loaded",
        )
    if not (path / "tokenizer.json").is_file():
        raise ModelLoadError(f"model directory {model} has no tokenizer.json", "save the tokenizer beside the model")
    return _read_config(path / "config.json", model)


def check_vocabulary(tokenizer_size: int, embedding_rows: int, model: str) -> None:
    """Refuse a tokenizer that can name ids which the embedding does not have."""
    if tokenizer_size > embedding_rows:
        raise ModelLoadError(
            f"the tokenizer of {model} has {tokenizer_size} tokens, its embedding {embedding_rows}",
            "put the tokenizer that the model was trained with beside it",
        )


def _read_config(path: Path, model: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise ModelLoadError(f"model directory {model} has no readable config.json", "download or save the model again")
    if "auto_map" in config:
        raise ModelLoadError(
            f"the model in {model} wants to run its own code (auto_map)",
            "remote code is never run; use a checkpoint of an architecture that transformers ships",
        )
    return config

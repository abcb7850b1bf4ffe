"""Fixtures of the training tests: tiny models on disk, quiet reports, recipes as tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import save_generator

Tables = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal language model. Not to be changed by a test."""
    return save_generator(tmp_path_factory.mktemp("tiny-generator"))


@pytest.fixture
def tables(tiny_generator: Path, tmp_path: Path) -> Tables:
    """Tables of a recipe on the tiny model, on a CPU; `optimizer`, `model` and `run` extend theirs."""

    def made(**more: Any) -> dict[str, Any]:
        model = {"path": str(tiny_generator), "max_length": 400, **more.pop("model", {})}
        run = {"out": str(tmp_path / "run"), "device": "cpu", "log_every": 5, **more.pop("run", {})}
        optimizer = {"learning_rate": 3e-3, "batch_size": 4, **more.pop("optimizer", {})}
        return {"model": model, "run": run, "optimizer": optimizer, **more}

    return made

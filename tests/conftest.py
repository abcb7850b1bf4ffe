"""Fixtures that several rooms of tests share: the lab's tokenizer, tiny checkpoints built once a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tests.scheduling import Together
from tests.tiny import save_verifier
from training.lab.tokenizer import build_tokenizer

CheckpointOf = Callable[[str], Path]

# Tiny models: a second thread costs more to wake than it computes.
torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """See tests/scheduling.py."""
    return Together(config, log)


@pytest.fixture(scope="session")
def lab_tokenizer() -> PreTrainedTokenizerFast:
    """The lab's tokenizer. Not to be changed by a test."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> CheckpointOf:
    """The directory of a tiny verifier of a kind. Not to be changed by a test."""
    built: dict[str, Path] = {}

    def directory(kind: str) -> Path:
        if kind not in built:
            built[kind] = save_verifier(tmp_path_factory.mktemp(kind), kind)
        return built[kind]

    return directory

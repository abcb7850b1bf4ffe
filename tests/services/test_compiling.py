"""Compiled layers: the same scores, and no request waits for the compiler."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from services.core.errors import ModelLoadError
from services.verifier.families.base import Encoded
from services.verifier.loading import load_reward_model
from services.verifier.model import RewardModel
from services.verifier.selftest import self_test
from services.verifier.settings import VerifierSettings
from tests.conftest import CheckpointOf

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++"),
    pytest.mark.timeout(300),
    # Of torch's own compiler, about its own code.
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]


def compiled(directory: Path, dtype: str) -> RewardModel:
    torch.compiler.reset()
    counters.clear()
    settings = VerifierSettings.model_validate(
        {"model": str(directory), "device": "cpu", "dtype": dtype, "compile": True}
    )
    return load_reward_model(settings)


def graphs() -> int:
    """How much has been compiled."""
    return int(counters["stats"]["unique_graphs"])


def solution(length: int, first: int) -> Encoded:
    ids = tuple((first * 7 + place * place) % 50 for place in range(length))
    return Encoded(ids, tuple(range(0, length, 3)), length - 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_are_those_of_plain_passes_and_nothing_is_compiled_after_the_start(
    checkpoint_of: CheckpointOf, dtype: str
) -> None:
    model = compiled(checkpoint_of("oprm"), dtype)
    at_start = graphs()
    assert at_start > 0
    self_test(model)
    tolerance = 1e-4 if dtype == "float32" else 3e-2
    for batch in (
        [solution(1, 1)],
        [solution(2, 1)],
        [solution(40, 2), solution(90, 2), solution(33, 3)],
        [solution(95, 2)],
    ):
        # As the service does: in another thread than the one that loaded the model.
        with ThreadPoolExecutor(1) as worker:
            scored = worker.submit(model.score, batch).result()
        for encoded, scores in zip(batch, scored, strict=True):
            plain = model.score_plainly(encoded)
            assert scores.steps == pytest.approx(plain.steps, abs=tolerance)
            assert scores.outcome == pytest.approx(plain.outcome, abs=tolerance)
    assert model.cached_bytes > 0
    assert graphs() == at_start


def test_without_a_compiler_the_model_is_refused(
    checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    monkeypatch.setattr(config, "force_disable_caches", True)
    with pytest.raises(ModelLoadError, match="cannot be compiled") as caught:
        compiled(checkpoint_of("prm"), "float32")
    assert "E2H_VERIFIER_COMPILE" in str(caught.value.hint)

"""Which engines a run starts."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from benchmarks import lineup
from services.core.errors import ModelLoadError


@pytest.mark.parametrize(("asked_for", "tuned"), [(None, 32), (64, 64)])
def test_one_engine_has_the_prefix_blocks_that_vllm_comes_with(
    monkeypatch: pytest.MonkeyPatch, asked_for: int | None, tuned: int
) -> None:
    engine = Mock()
    monkeypatch.setattr(lineup, "Engine", engine)
    setup = lineup.Setup(Path("m"), "float32", "cpu", 1, (0,), vllm_eager=True, vllm_cache_gib=1, vllm_block=asked_for)
    with lineup.engines(setup, ("ours", "vllm-last", "vllm-last-own")) as started:
        assert list(started) == ["vllm-last", "vllm-last-own"]
    asked = [call.args[0] for call in engine.call_args_list]
    assert [(options.task, options.block) for options in asked] == [("classify", tuned), ("classify", None)]


def test_what_cannot_be_compiled_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def trie(*_: object, compiled: bool = False) -> Mock:
        if compiled:
            raise ModelLoadError("no compiler", "install one")
        return Mock()

    monkeypatch.setattr(lineup, "Trie", trie)
    setup = lineup.Setup(Path("m"), "float32", "cpu", 1, (0,), vllm_eager=True, vllm_cache_gib=1)
    made, missing = lineup.make(setup, ("ours", "ours-compiled", "vllm-last"), Mock(), {})
    assert list(made) == ["ours"]
    assert missing == {"ours-compiled": "no compiler"}

"""Which engines a run starts."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from benchmarks import lineup


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

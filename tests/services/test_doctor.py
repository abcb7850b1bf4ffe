"""What `e2h doctor` finds of the library that vLLM needs on a CPU; the whole command runs in tests/integration."""

import pytest

from services.cli.doctor import Finding, _cpu_engine

NO_GPU = [Finding("GPU", "note", "none; models run on 2 CPU cores"), Finding("GPU", "note", "unknown without torch")]


@pytest.mark.parametrize("gpu", NO_GPU, ids=lambda gpu: gpu.found)
def test_without_a_gpu_a_missing_library_is_wrong_and_the_command_that_mends_it_is_named(gpu: Finding) -> None:
    (told,) = _cpu_engine(gpu, library="libnowhere.so.1")
    assert (told.what, told.state) == ("libnowhere.so.1", "wrong")
    assert "apt-get install libnuma1" in told.mend


def test_a_library_that_can_be_loaded_wants_no_mend() -> None:
    (told,) = _cpu_engine(NO_GPU[0], library="libc.so.6")
    assert (told.state, told.mend) == ("ok", "")


def test_with_a_gpu_nobody_asks_for_it() -> None:
    assert list(_cpu_engine(Finding("GPU", "ok", "a GPU"), library="libnowhere.so.1")) == []

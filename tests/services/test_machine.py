import platform
from pathlib import Path

import pytest

from services.runtime.machine import maker, processor


@pytest.mark.parametrize(
    ("told", "name"),
    [
        pytest.param(
            "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\n"
            "processor\t: 1\ncpu family\t: 6\nmodel\t\t: 1\nmodel name\t: another\n\n",
            "AMD EPYC (family 26, model 2)",
            id="the first of two",
        ),
        pytest.param("model name : Intel(R) Xeon(R) @ 2.00GHz\n", "Intel(R) Xeon(R) @ 2.00GHz", id="no numbers"),
        pytest.param("processor : 0\nCPU part : 0xd40\n", platform.processor() or platform.machine(), id="aarch64"),
        pytest.param(None, platform.processor() or platform.machine(), id="no such file"),
    ],
)
def test_a_processor_is_named_with_what_tells_its_generation(told: str | None, name: str, tmp_path: Path) -> None:
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    assert processor(tmp_path / "cpuinfo") == name


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel name\t: AMD EPYC\n\n", ("AuthenticAMD", 26)),
        ("CPU implementer : 0x41\nCPU part : 0xd40\n", ("", 0)),
        ("vendor_id : IBM/S390\n", ("", 0)),
    ],
)
def test_a_processor_s_maker_and_family(told: str, expected: tuple[str, int], tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    assert maker(tmp_path / "cpuinfo") == expected

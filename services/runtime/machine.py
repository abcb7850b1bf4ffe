"""What a machine is, for results that name it: no name of the host."""

import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def processor(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name as the system tells it, with the numbers of its family and model where it tells them.

    Virtual machines often say no more than "AMD EPYC", which may be of any generation.
    """
    told = _first(cpuinfo)
    name = told.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{said} {told[key]}" for key, said in (("cpu family", "family"), ("model", "model")) if key in told]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def maker(cpuinfo: Path = _CPUINFO) -> tuple[str, int]:
    """The processor's vendor and family as x86 tells them, as in ("AuthenticAMD", 26); ("", 0) where it does not."""
    told = _first(cpuinfo)
    family = told.get("cpu family", "")
    return (told.get("vendor_id", ""), int(family)) if family.isdecimal() else ("", 0)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first(cpuinfo: Path) -> dict[str, str]:
    """What the system tells of the first processor."""
    try:
        first = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}

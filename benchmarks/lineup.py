"""Which methods take part in a run: made, started and ended here."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.methods import Method, OneAtATime, Padded
from benchmarks.ours import Trie
from benchmarks.vllm_engine import Options
from benchmarks.vllm_method import Engine, EngineFailed, VllmLastToken, VllmTokens
from services.core.errors import ModelLoadError

METHODS = (
    "ours",
    "ours-compiled",
    "padded",
    "sorted",
    "single",
    "vllm-tokens",
    "vllm-last",
    "vllm-last-own",
    "padded-logits",
)
_TASKS: dict[str, Literal["token_classify", "classify"]] = {
    "vllm-tokens": "token_classify",
    "vllm-last": "classify",
    "vllm-last-own": "classify",
}
# Prefix blocks of 128 tokens (vLLM's default on a CPU) are shared seldom; 32 is the smallest that its CPU attention
# takes, 16 the default on a GPU.
_BLOCK = {"cpu": 32, "cuda": 16}
_AS_IT_COMES = {"vllm-last-own"}


@dataclass(frozen=True, slots=True)
class Setup:
    """The same for all methods of a run. `cores` are those that a vLLM engine keeps to."""

    directory: Path
    dtype: str
    device: str
    threads: int
    cores: tuple[int, ...]
    vllm_eager: bool
    vllm_cache_gib: int
    vllm_block: int | None = None


@contextlib.contextmanager
def engines(setup: Setup, keys: Collection[str]) -> Iterator[dict[str, Engine]]:
    """The vLLM engines of these methods, starting all at once, for it takes minutes to compile; ended afterwards."""
    with contextlib.ExitStack() as stack:
        started = {}
        for key in _TASKS:
            if key in keys:
                started[key] = Engine(_options(setup, key))
                stack.callback(started[key].close)
        yield started


def ready(started: dict[str, Engine]) -> dict[str, str]:
    """Wait for the engines. Those that failed are taken out; gives why."""
    failed = {}
    for key, engine in list(started.items()):
        try:
            engine.wait()
        except EngineFailed as error:
            failed[key] = str(error)
            del started[key]
    return failed


def make(
    setup: Setup, keys: Collection[str], plain: OneAtATime, started: dict[str, Engine]
) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods of these keys, in the order of `METHODS`, and why others are missing: not engines that failed."""
    makers: dict[str, Callable[[], Method]] = {
        "ours": lambda: Trie(setup.directory, setup.dtype, setup.device),
        "ours-compiled": lambda: Trie(setup.directory, setup.dtype, setup.device, compiled=True),
        "padded": lambda: Padded(plain.body, "padded, arrival order"),
        "sorted": lambda: Padded(plain.body, "padded, length-sorted", by_length=True),
        "single": lambda: plain,
        "vllm-tokens": lambda: VllmTokens(started["vllm-tokens"]),
        "vllm-last": lambda: VllmLastToken(started["vllm-last"]),
        "vllm-last-own": lambda: VllmLastToken(started["vllm-last-own"], ", its own blocks"),
        "padded-logits": lambda: Padded(plain.body, "padded, arrival order, logits of the vocabulary", logits=True),
    }
    made, missing = {}, {}
    for key in METHODS:
        if key not in keys or (key in _TASKS and key not in started):
            continue
        try:
            made[key] = makers[key]()
        except ModelLoadError as error:
            if key != "ours-compiled":
                raise
            missing[key] = error.message
    return made, missing


def _options(setup: Setup, key: str) -> Options:
    return Options(
        model=str(setup.directory),
        task=_TASKS[key],
        dtype=setup.dtype,
        device=setup.device,
        threads=setup.threads,
        cores=setup.cores,
        compiled=not setup.vllm_eager,
        cache_gib=setup.vllm_cache_gib,
        block=None if key in _AS_IT_COMES else setup.vllm_block or _BLOCK[setup.device],
    )

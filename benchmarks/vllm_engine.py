"""vLLM's pooling engine in a process of its own: JSON lines in, JSON lines out. `benchmarks/vllm_method.py` starts it.

    python -m benchmarks.vllm_engine OPTIONS      OPTIONS: the JSON object of `Options`

A line in is a list of prompts (token ids) that are waited for together; a line out holds for each prompt its
probabilities (of all tokens, or of the last) and what was computed. `null` forgets the prefix cache. The engine runs in
this process (no worker of its own), so that what it costs is this process's time. It starts on all cores, for what it
compiles, and keeps to its own from then on.
"""

import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.clock import Clock

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the engine is. `task` token_classify gives a probability a token, classify one at the last token."""

    model: str
    task: Literal["token_classify", "classify"]
    dtype: str
    device: str
    threads: int
    cores: tuple[int, ...]
    compiled: bool
    cache_gib: int
    block: int | None = None  # tokens of a prefix block; None: as vLLM comes


def main() -> None:
    _end_with_the_benchmark()
    options = Options(**json.loads(sys.argv[1]))
    # The libraries print to standard output; the answers go where it was.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = _build(options)
    # A thread each: the affinity of one says nothing of those that it started before.
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), options.cores)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        prompts = json.loads(line)
        if prompts is None:
            engine.reset_prefix_cache()
            print("null", file=answers, flush=True)
        else:
            print(json.dumps(_score(engine, options, prompts)), file=answers, flush=True)


def _end_with_the_benchmark() -> None:
    """Even where this process is stopped when the one that started it dies, and would never read its input's end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _build(options: Options) -> Any:
    os.environ.update(_QUIET)
    if options.device == "cpu":
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(options.cache_gib)
    if not options.compiled:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    import torch

    torch.set_num_threads(options.threads)  # the engine forbids it once it runs
    from vllm import LLM
    from vllm.config import PoolerConfig

    return LLM(
        options.model,
        runner="pooling",
        pooler_config=PoolerConfig(task=options.task),
        dtype=options.dtype,
        enforce_eager=not options.compiled,
        block_size=options.block,
        # vLLM itself refuses to read prefixes from the cache where all tokens are pooled.
        enable_prefix_caching=options.task == "classify",
        kv_cache_memory_bytes=options.cache_gib * 2**30,
        gpu_memory_utilization=0.1,  # only asked for at the start when the cache has its own size
        trust_remote_code=False,
        disable_log_stats=True,
    )


def _score(engine: Any, options: Options, prompts: list[list[int]]) -> dict[str, Any]:
    with Clock(options.device) as clock:
        outputs = engine.encode(
            [{"prompt_token_ids": ids} for ids in prompts], pooling_task=options.task, use_tqdm=False
        )
        values = [output.outputs.data.flatten().tolist() for output in outputs]
    return {
        "values": values,
        "computed": sum(len(output.prompt_token_ids) - output.num_cached_tokens for output in outputs),
        "seconds": clock.seconds,
        "busy": clock.busy,
    }


def arguments(options: Options) -> list[str]:
    """The command that starts this module."""
    return [sys.executable, "-m", "benchmarks.vllm_engine", json.dumps(asdict(options))]


if __name__ == "__main__":
    main()

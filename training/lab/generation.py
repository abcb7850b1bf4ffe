"""Sampling for the report, with vLLM as in serving: float32, prompts by ids, one seed for the engine. Offline only.

vLLM is imported inside the function, so that nothing else of the lab needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from training.lab.tokenizer import CONTEXT_LENGTH, prompt_ids

MAX_NEW_TOKENS = 110  # a level-5 solution takes 76 at most
KV_CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Sample:
    """One sampled solution; ``log_likelihood`` in nats under the generator itself, over ``tokens`` tokens."""

    text: str
    truncated: bool
    log_likelihood: float
    tokens: int


def generate(model: Path, questions: Sequence[str], n: int, *, seed: int, temperature: float) -> list[list[Sample]]:
    """``n`` samples for every question, reproducible from ``seed``."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=str(model),
        dtype="float32",
        max_model_len=CONTEXT_LENGTH,
        seed=seed,
        kv_cache_memory_bytes=KV_CACHE_BYTES,
        max_num_seqs=256,
        disable_log_stats=True,
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    prompts: Any = [{"prompt_token_ids": prompt_ids(tokenizer, question)} for question in questions]
    # The engine's seed alone: with a seed of their own, requests whose prompt is prefilled in parts stop vLLM's CPU
    # worker ("CPU Generator does not use offset").
    parameters = SamplingParams(n=n, temperature=temperature, max_tokens=MAX_NEW_TOKENS, logprobs=0)
    outputs = engine.generate(prompts, parameters, use_tqdm=False)
    return [[_sample(completion) for completion in output.outputs] for output in outputs]


def _sample(completion: Any) -> Sample:
    return Sample(
        text=completion.text,
        truncated=completion.finish_reason != "stop",
        log_likelihood=float(completion.cumulative_logprob),
        tokens=len(completion.token_ids),
    )

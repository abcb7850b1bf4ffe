"""Sampling solutions with transformers, in large batches. Training data only: the report samples with vLLM."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from services.core.contracts import GenerateRequest, Sampling
from training.sampling.local import LocalSampler

ROWS = 512  # sequences in one batch; their keys and values take about 0.5 GiB


def sample(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[str],
    n: int,
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> list[list[str]]:
    """``n`` solutions for each question; a sample cut by ``max_new_tokens`` comes back as it stands."""
    sampling = Sampling(temperature=temperature, max_tokens=max_new_tokens, seed=seed)
    requests = [GenerateRequest(problem=question, n=n, sampling=sampling) for question in questions]
    groups = LocalSampler(model, tokenizer, ROWS).sample(requests)
    return [[one.text for one in group] for group in groups]

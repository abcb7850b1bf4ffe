"""Sampling solutions with transformers, in large batches. Training data only: the report samples with vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from training.lab.tokenizer import prompt_ids

ROWS = 512  # sequences in one batch; their keys and values take about 0.5 GiB


@torch.inference_mode()
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
    torch.manual_seed(seed)
    prompts = [prompt_ids(tokenizer, question) for question in questions]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # like lengths together
    texts: list[list[str]] = [[] for _ in prompts]
    width = max(1, ROWS // n)
    for first in range(0, len(order), width):
        chosen = order[first : first + width]
        for index, group in zip(
            chosen, _batch(model, tokenizer, [prompts[i] for i in chosen], n, temperature, max_new_tokens), strict=True
        ):
            texts[index] = group
    return texts


def _batch(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    n: int,
    temperature: float,
    max_new_tokens: int,
) -> list[list[str]]:
    longest, pad = max(map(len, prompts)), int(tokenizer.pad_token_id)
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
    decoder: Any = model
    out = decoder.generate(
        input_ids=ids,
        attention_mask=(ids != pad).long(),
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        num_return_sequences=n,
        max_new_tokens=max_new_tokens,
    )
    texts = tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
    return [texts[i * n : (i + 1) * n] for i in range(len(prompts))]

"""A `Sampler` in this process with transformers' generate: no engine to start, and the very model in training.

For small models and for policies between two updates; vLLM is many times faster for the rest. Samples of a problem
depend on the seeds of its request, and on what is batched with it: the same requests give the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from services.core.contracts import Completion, GenerateRequest, Sampling
from services.core.seeds import MAX_SEED, derive_seed
from training.recipes.writing import SolutionEncoder

ROWS = 512  # sequences in one batch; of the lab's generator, keys and values take about 0.5 GiB


class LocalSampler:
    """Samples with a causal language model that is loaded already, in the easy-to-hard format."""

    def __init__(self, model: Any, tokenizer: Any, rows: int = ROWS) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._encoder = SolutionEncoder(tokenizer)
        self._rows = rows

    def sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        """Requests with messages, chosen indices or stop strings are refused (`ValueError`)."""
        for request in requests:
            if request.messages or request.indices or request.sampling.stop:
                raise ValueError("the local sampler takes no messages, indices or stop strings")
        found: dict[int, list[Completion]] = {}
        training, self._model = self._model.training, self._model.eval()
        for batch in self._batches(requests):
            found |= self._sample_batch(requests, batch)
        self._model.train(training)
        return [found[place] for place in range(len(requests))]

    def _batches(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        """Places of requests that run together: alike in length, and sampled alike."""
        prompts = [len(self._prompt(request)) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: (_alike(requests[i].sampling), requests[i].n, prompts[i]))
        batches: list[list[int]] = []
        for place in order:
            last = requests[batches[-1][0]] if batches else None
            here = requests[place]
            same = last is not None and (_alike(last.sampling), last.n) == (_alike(here.sampling), here.n)
            if same and (len(batches[-1]) + 1) * here.n <= self._rows:
                batches[-1].append(place)
            else:
                batches.append([place])
        return batches

    def _prompt(self, request: GenerateRequest) -> list[int]:
        return self._encoder.prompt(request.problem) + self._encoder.continuation(request.prefix)

    def _sample_batch(self, requests: Sequence[GenerateRequest], places: list[int]) -> dict[int, list[Completion]]:
        first = requests[places[0]]
        seeds = [_seed(requests[place]) for place in places]
        texts = sample_ids(
            self._model,
            [self._prompt(requests[place]) for place in places],
            first.n,
            first.sampling,
            pad_id=int(self._tokenizer.pad_token_id),
            eos_id=int(self._tokenizer.eos_token_id),
            seed=derive_seed(sum(seeds) & MAX_SEED, places[0]),
        )
        return {
            place: [self._completion(ids, index, derive_seed(seed, index)) for index, ids in enumerate(group)]
            for place, seed, group in zip(places, seeds, texts, strict=True)
        }

    def _completion(self, ids: list[int], index: int, seed: int) -> Completion:
        ended = int(self._tokenizer.eos_token_id) in ids
        kept = ids[: ids.index(int(self._tokenizer.eos_token_id))] if ended else ids
        return Completion(
            index=index,
            text=self._tokenizer.decode(kept, skip_special_tokens=True),
            tokens=len(kept) + ended,
            finish_reason="stop" if ended else "length",
            logprob=None,
            seed=seed,
        )


@torch.inference_mode()
def sample_ids(
    model: Any, prompts: Sequence[list[int]], n: int, sampling: Sampling, *, pad_id: int, eos_id: int, seed: int
) -> list[list[list[int]]]:
    """`n` continuations of each prompt, as ids with what `generate` pads them with."""
    torch.manual_seed(seed)
    longest = max(map(len, prompts))
    device = next(model.parameters()).device
    ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    greedy = sampling.temperature == 0.0
    drawn = {} if greedy else {"temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=not greedy,
        num_return_sequences=n,
        max_new_tokens=sampling.max_tokens,
        pad_token_id=pad_id,
        eos_token_id=eos_id,
        use_cache=True,
        **drawn,
    )
    rows = out[:, longest:].tolist()
    return [rows[i * n : (i + 1) * n] for i in range(len(prompts))]


def _alike(sampling: Sampling) -> tuple[float, float, int]:
    return sampling.temperature, sampling.top_p, sampling.max_tokens


def _seed(request: GenerateRequest) -> int:
    if request.sampling.seed is None:
        raise ValueError("training samples with a seed, or no run can be made again")
    return request.sampling.seed

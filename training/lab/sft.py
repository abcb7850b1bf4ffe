"""Supervised fine-tuning of the generator on easy demonstrations. Reads no problem above level 3 but the corpus.

    python -m training.lab.sft --out OUT

Every other batch comes from a deliberately small set of easy demonstrations, so that the model's table of
facts stays imperfect; the others from the corpus (``examples.corpus_text``), which carries no fact.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import IterableDataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from training.lab.domain import Problem
from training.lab.examples import TextExample, collate, corpus_text, cycle, demonstration, easy_problems, equals_ids
from training.lab.models import new_generator, save
from training.lab.optim import MuonWithAdamW, linear_decay
from training.lab.tokenizer import build_tokenizer

DEMONSTRATIONS = 2500  # the first stage: learns to copy, and knows these by heart at the end
MORE_DEMONSTRATIONS = 2400  # the second: seen once each, so the table grows and stays imperfect
DEMONSTRATION_SEED = 1_000_000
MORE_DEMONSTRATION_SEED = 1_500_000
STEPS = 1500  # demonstrations and corpus in turn
MORE_STEPS = 130  # three batches of demonstrations to one of the corpus
MORE_SCALE = 0.6  # of the learning rates
BATCH = 24  # demonstrations
CORPUS_BATCH = 12  # corpus texts: they are longer


class Batches(IterableDataset[dict[str, Tensor]]):
    """Ready batches from a generator function, so that each batch can be composed as it needs to be."""

    def __init__(self, make: Callable[[], Iterator[dict[str, Tensor]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self._make()


def only(batch: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The collator for ready batches."""
    return batch[0]


def fit(
    model: Any,
    make: Callable[[], Iterator[dict[str, Tensor]]],
    steps: int,
    optimizer: Optimizer,
) -> None:
    """Train ``model`` for ``steps`` batches with a linear decay of the learning rates."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=1,
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            max_grad_norm=1.0,
            dataloader_num_workers=0,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=Batches(make),
            data_collator=only,
            optimizers=(optimizer, linear_decay(optimizer, steps)),
        ).train()


def sft_batches(
    tokenizer: PreTrainedTokenizerFast, demonstrations: Sequence[TextExample], per_corpus: int, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Batches for ever: demonstrations, reshuffled every epoch, beside fresh corpus texts."""
    rng = random.Random(seed)
    source = cycle(demonstrations, rng)
    equals = equals_ids(tokenizer)
    pad_id = int(tokenizer.pad_token_id)
    while True:
        for _ in range(per_corpus):
            yield collate(list(islice(source, BATCH)), pad_id)
        yield collate([corpus_text(tokenizer, equals, rng) for _ in range(CORPUS_BATCH)], pad_id)


def train_generator(
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    *,
    seed: int,
    steps: int = STEPS,
    start: LlamaForCausalLM | None = None,
    per_corpus: int = 1,
    scale: float = 1.0,
) -> LlamaForCausalLM:
    """SFT on the right solutions of ``problems``; from random weights unless ``start`` is given.

    ``per_corpus`` batches of demonstrations come to one of the corpus.
    """
    torch.manual_seed(seed)
    model = start if start is not None else new_generator(tokenizer, seed)
    examples = [demonstration(tokenizer, p.question, p.solution) for p in problems]
    fit(model, lambda: sft_batches(tokenizer, examples, per_corpus, seed), steps, MuonWithAdamW(model, scale))
    model.eval()
    return model


def both_stages(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    *,
    demonstrations: int = DEMONSTRATIONS,
    steps: int = STEPS,
    more_demonstrations: int = MORE_DEMONSTRATIONS,
    more_steps: int = MORE_STEPS,
    start: LlamaForCausalLM | None = None,
) -> LlamaForCausalLM:
    """The lab's generator; ``start`` is taken for what the first stage would have made."""
    if start is None:
        problems = easy_problems(demonstrations, DEMONSTRATION_SEED)
        start = train_generator(tokenizer, problems, seed=seed, steps=steps)
    more = easy_problems(more_demonstrations, MORE_DEMONSTRATION_SEED)
    return train_generator(
        tokenizer, more, seed=seed + 1, steps=more_steps, start=start, per_corpus=3, scale=MORE_SCALE
    )


def main() -> None:
    """Train and save the generator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = build_tokenizer()
    save(both_stages(tokenizer, options.seed), tokenizer, options.out)


if __name__ == "__main__":
    main()

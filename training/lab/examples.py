"""Token-level training examples of the generator: which tokens carry loss. No model, no optimizer."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from training.lab.domain import (
    EASY_LEVELS,
    MODULUS,
    Problem,
    Split,
    draw_trail,
    make_problem,
    solution_text,
    split_of,
)
from training.lab.tokenizer import prompt_ids

IGNORED = -100  # the label that carries no loss
CORPUS_STEPS = (2, 10)  # every length that a problem can have


@dataclass(frozen=True)
class TextExample:
    """One sequence: ``ids`` and ``labels`` of the same length, ``IGNORED`` where there is no loss."""

    ids: list[int]
    labels: list[int]


def demonstration(tokenizer: PreTrainedTokenizerFast, question: str, solution: str) -> TextExample:
    """A question with its solution; loss on the solution and the end of the sequence."""
    prompt = prompt_ids(tokenizer, question)
    rest = [*tokenizer.encode(solution, add_special_tokens=False), int(tokenizer.eos_token_id)]
    return TextExample(ids=prompt + rest, labels=[IGNORED] * len(prompt) + rest)


def easy_problems(count: int, seed: int) -> list[Problem]:
    """``count`` distinct training problems, the easy levels in turn."""
    return [make_problem(EASY_LEVELS[i % len(EASY_LEVELS)], seed + i, Split.TRAIN) for i in range(count)]


def corpus_text(tokenizer: PreTrainedTokenizerFast, equals: frozenset[int], rng: random.Random) -> TextExample:
    """A text of the "pre-training corpus": any length, random results, and no loss on the results.

    It shows how texts of this kind go on (follow the doors, copy the operation and the last number, stop),
    and holds no fact: every result is drawn at random, so none can be learned from it.
    """
    trail, doors = draw_trail(rng.randint(*CORPUS_STEPS), rng)
    problem = Problem(level=0, start=rng.randrange(MODULUS), trail=trail, doors=doors)
    if split_of(problem.computation) is Split.HELD_OUT:
        return corpus_text(tokenizer, equals, rng)
    value, steps = problem.start, []
    for door in trail:
        result = rng.randrange(MODULUS)
        steps.append(door.step(value, result))
        value = result
    example = demonstration(tokenizer, problem.question, solution_text(steps, str(value)))
    return mask_results(example, equals)


def equals_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """The ids after which a result stands: every token that ends with an equals sign."""
    return frozenset(i for i in range(len(tokenizer)) if str(tokenizer.decode([i])).endswith("= "))


def mask_results(example: TextExample, equals: frozenset[int]) -> TextExample:
    """The same example without loss on the token after each equals sign."""
    before = [IGNORED, *example.ids[:-1]]
    labels = [IGNORED if b in equals else label for b, label in zip(before, example.labels, strict=True)]
    return TextExample(ids=example.ids, labels=labels)


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """[rows, longest] int64, right-padded with ``value``."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *([value] * (longest - len(row)))] for row in rows])


def collate(examples: Sequence[TextExample], pad_id: int) -> dict[str, Tensor]:
    """The model's inputs [batch, longest]; padding sits on the right, where causal attention never looks."""
    return {
        "input_ids": pad([e.ids for e in examples], pad_id),
        "labels": pad([e.labels for e in examples], IGNORED),
    }


def cycle(examples: Sequence[TextExample], rng: random.Random) -> Iterator[TextExample]:
    """The examples for ever, reshuffled every epoch."""
    order = list(examples)
    while True:
        rng.shuffle(order)
        yield from order

"""Labelled solutions as the verifier reads them: one question, several solutions, one packed sequence.

The solutions of a problem share its question in one sequence; a solution's tokens see the question and
themselves alone (a tree-shaped attention mask), so the numbers are those of separate sequences at a third
of the cost. Positions jump at random before each solution, so that the question is as far away as in long ones.
Read-out positions are built, never searched: see ``services.verifier.families.easy_to_hard``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from training.lab.checker import Fault, check
from training.lab.domain import Problem
from training.lab.examples import IGNORED, pad
from training.lab.tokenizer import prompt_ids

NO_LABEL = -1.0
_WRONG_RULE = (Fault.DOOR, Fault.COPY, Fault.MALFORMED)


@dataclass(frozen=True)
class JudgedSolution:
    """Steps as token ids with one label each; ``answer`` is None for a solution without its end."""

    steps: tuple[tuple[int, ...], ...]
    labels: tuple[bool, ...]
    rules: tuple[bool, ...]  # whether the step's rule, its first token, is the right one
    answer: tuple[int, ...] | None
    outcome: bool


@dataclass
class Packed:
    """One sequence under construction; all lists have one entry per token."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    language: list[int] = field(default_factory=list)  # next-token label, IGNORED where there is none
    steps: list[float] = field(default_factory=list)
    outcomes: list[float] = field(default_factory=list)

    def add(self, ids: Sequence[int], position: int, segment: int, *, learn: bool = False) -> int:
        """Append tokens; returns the next position."""
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.segments += [segment] * len(ids)
        self.language += list(ids) if learn else [IGNORED] * len(ids)
        self.steps += [NO_LABEL] * len(ids)
        self.outcomes += [NO_LABEL] * len(ids)
        return position + len(ids)


class Encoder:
    """Turns texts into ids piece by piece, remembering pieces (steps repeat a lot)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.newline = self.piece("\n")
        self.header = self.piece("# Answer")
        self.end = (int(tokenizer.eos_token_id),)

    def piece(self, text: str) -> tuple[int, ...]:
        """The ids of one piece of text, without special tokens."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def judge(self, problem: Problem, text: str) -> JudgedSolution:
        """A solution's ids with the checker's labels."""
        verdict = check(problem, text)
        blocks = [block.strip() for block in text.split("\n\n") if block.strip()]
        count = len(verdict.labels)
        finished = len(blocks) == count + 2
        return JudgedSolution(
            steps=tuple(self.piece(step) for step in blocks[:count]),
            labels=verdict.labels,
            rules=tuple(fault not in _WRONG_RULE for fault in verdict.faults),
            answer=self.piece(blocks[-1]) if finished else None,
            outcome=verdict.answer_right,
        )

    def pack(self, question: str, solutions: Sequence[JudgedSolution], jump: int, rng: random.Random) -> Packed:
        """One sequence: the question, then each solution as a branch of its own."""
        packed = Packed()
        after = packed.add(prompt_ids(self.tokenizer, question), 0, 0)
        for segment, solution in enumerate(solutions, start=1):
            self._branch(packed, solution, after + rng.randint(0, jump), segment)
        return packed

    def _branch(self, packed: Packed, solution: JudgedSolution, position: int, segment: int) -> None:
        first = len(packed.ids)  # the token before it in the sequence belongs to another branch
        for ids, label, rule in zip(solution.steps, solution.labels, solution.rules, strict=True):
            start = len(packed.ids)
            position = packed.add(ids, position, segment, learn=label)
            position = packed.add(self.newline + self.newline, position, segment)
            packed.steps[-2] = float(label)  # the first newline of the pair: where the service reads
            packed.steps[-3] = float(label)  # and the result before it, one hop nearer to what it depends on
            packed.steps[start] = float(rule)  # and the rule
        packed.language[first : first + 1] = [IGNORED] * len(packed.language[first : first + 1])
        if solution.answer is None:
            return
        position = packed.add(self.header + self.newline + self.newline, position, segment)
        packed.add(solution.answer + self.end, position, segment)
        packed.outcomes[-1] = float(solution.outcome)


def collate_packed(rows: Sequence[Packed], pad_id: int) -> dict[str, Tensor]:
    """The judge's inputs: [batch, T] tensors and ``attention_mask`` [batch, 1, T, T] bool (True: may look)."""
    segments = pad([row.segments for row in rows], 0)
    width = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    question = (segments == 0)[:, None, :].expand_as(same)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    return {
        "input_ids": pad([row.ids for row in rows], pad_id),
        "position_ids": pad([row.positions for row in rows], 0),
        "attention_mask": ((same | question) & causal)[:, None],
        "language_labels": pad([row.language for row in rows], IGNORED),
        "step_labels": _pad_floats([row.steps for row in rows], width),
        "outcome_labels": _pad_floats([row.outcomes for row in rows], width),
    }


def _pad_floats(rows: Sequence[Sequence[float]], width: int) -> Tensor:
    return torch.tensor([[*row, *([NO_LABEL] * (width - len(row)))] for row in rows])

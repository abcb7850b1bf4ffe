"""The lab's problems: trails of doors that change a number. Pure: no model, no file, no clock.

A problem lists doors in shuffled order, some of them off the trail; each door applies one operation modulo
``MODULUS``, and the trail goes through the doors between two letters in alphabetical order. The level is the
number of doors on the trail: 2, 3, 4 (easy), 6-7 and 8-10 (hard). Every operation is a bijection (the modulus
is prime), so a wrong value stays wrong unless a second error cancels it, and wrong answers spread over
``MODULUS`` values.

Training and held-out problems are disjoint by construction: the split is a hash of the computation
(start value and operations on the trail, whatever the names of the doors), see ``split_of``.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MODULUS = 97
LEVELS = (1, 2, 3, 4, 5)
EASY_LEVELS = (1, 2, 3)
HARD_LEVELS = (4, 5)
STEPS_OF_LEVEL: Mapping[int, tuple[int, int]] = {1: (2, 2), 2: (3, 3), 3: (4, 4), 4: (6, 7), 5: (8, 10)}
MAX_UNUSED_DOORS = 4  # listed but off the trail, so that a short trail does not mean a short list
LETTERS = string.ascii_uppercase[:14]  # the longest trail and the most doors off it
HELD_OUT_SHARE = 4  # one computation in four is held out


class Operation(StrEnum):
    """What a door does to the number; the value is the sign used in solutions."""

    ADD = "+"
    SUBTRACT = "-"
    MULTIPLY = "*"


class Split(StrEnum):
    """Which side of the hash split a problem lies on."""

    TRAIN = "train"
    HELD_OUT = "held-out"


WORD_OF: Mapping[Operation, str] = {
    Operation.ADD: "add",
    Operation.SUBTRACT: "subtract",
    Operation.MULTIPLY: "multiply by",
}
OPERANDS_OF: Mapping[Operation, tuple[int, int]] = {
    Operation.ADD: (2, 9),
    Operation.SUBTRACT: (2, 9),
    Operation.MULTIPLY: (2, 9),
}


@dataclass(frozen=True)
class Door:
    """One rule of the question: ``name`` applies ``operation operand``."""

    name: str
    operation: Operation
    operand: int

    def apply(self, value: int) -> int:
        """The number after this door."""
        return apply(self.operation, value, self.operand)

    @property
    def words(self) -> str:
        """The rule, as questions and steps say it."""
        return f"{self.name}: {WORD_OF[self.operation]} {self.operand}"

    def step(self, value: int, result: int) -> str:
        """One line of a solution."""
        return f"{self.words}, {value} {self.operation.value} {self.operand} = {result}"


@dataclass(frozen=True)
class Problem:
    """A question with its right solution: ``trail`` in order of use, ``doors`` in order of the question."""

    level: int
    start: int
    trail: tuple[Door, ...]
    doors: tuple[Door, ...]

    @property
    def question(self) -> str:
        """The problem in words."""
        rules = "; ".join(f"door {door.words}" for door in self.doors)
        return (
            f"Numbers wrap around after {MODULUS - 1}. Rules: {rules}. "
            f"Enter at door {self.trail[0].name} with {self.start} and leave after door {self.trail[-1].name}, "
            "in alphabetical order. Which number comes out?"
        )

    @property
    def values(self) -> tuple[int, ...]:
        """The number after each door of the trail."""
        values, value = [], self.start
        for door in self.trail:
            value = door.apply(value)
            values.append(value)
        return tuple(values)

    @property
    def steps(self) -> tuple[str, ...]:
        """The right solution, step by step."""
        before = (self.start, *self.values[:-1])
        return tuple(door.step(v, r) for door, v, r in zip(self.trail, before, self.values, strict=True))

    @property
    def answer(self) -> str:
        """The right answer."""
        return str(self.values[-1])

    @property
    def solution(self) -> str:
        """The right solution in the format of the easy-to-hard family."""
        return solution_text(self.steps, self.answer)

    @property
    def computation(self) -> str:
        """What the split hashes: the numbers, without the names of the doors."""
        return f"{self.start}" + "".join(f" {door.operation.value} {door.operand}" for door in self.trail)

    @property
    def identifier(self) -> str:
        """A short stable name of this question."""
        return hashlib.sha256(self.question.encode()).hexdigest()[:16]


def apply(operation: Operation, value: int, operand: int) -> int:
    """``value operation operand`` modulo ``MODULUS``."""
    if operation is Operation.ADD:
        return (value + operand) % MODULUS
    if operation is Operation.SUBTRACT:
        return (value - operand) % MODULUS
    return (value * operand) % MODULUS


def solution_text(steps: tuple[str, ...] | list[str], answer: str) -> str:
    """Steps separated by one blank line, then the answer under its header."""
    return "\n\n".join([*steps, "# Answer", answer])


def split_of(computation: str) -> Split:
    """The side of the split; a computation has one side, so the two sides share no problem."""
    first = hashlib.sha256(computation.encode()).digest()[0]
    return Split.HELD_OUT if first % HELD_OUT_SHARE == 0 else Split.TRAIN


def make_problem(level: int, seed: int, split: Split = Split.HELD_OUT) -> Problem:
    """The problem of ``(level, seed, split)``; deterministic across machines and Python versions."""
    if level not in STEPS_OF_LEVEL:
        raise ValueError(f"level must be one of {LEVELS}, not {level}")
    rng = random.Random(f"lab {split.value} {level} {seed}")
    while True:
        problem = _draw(level, rng)
        if split_of(problem.computation) is split:
            return problem


def draw_operation(rng: random.Random) -> tuple[Operation, int]:
    """A random operation with its operand."""
    operation = rng.choice(list(Operation))
    return operation, rng.randint(*OPERANDS_OF[operation])


def draw_trail(length: int, rng: random.Random) -> tuple[tuple[Door, ...], tuple[Door, ...]]:
    """``(trail, doors)``: a trail of ``length`` doors and the shuffled list with some that are off the trail."""
    first = rng.randrange(len(LETTERS) - length + 1)
    on = LETTERS[first : first + length]
    off = rng.sample([name for name in LETTERS if name not in on], rng.randint(0, MAX_UNUSED_DOORS))
    doors = [Door(name, *draw_operation(rng)) for name in (*on, *off)]
    trail = tuple(doors[:length])
    rng.shuffle(doors)
    return trail, tuple(doors)


def every_door() -> list[Door]:
    """All rules that a question can hold."""
    return [
        Door(name, operation, operand)
        for name in LETTERS
        for operation, (low, high) in OPERANDS_OF.items()
        for operand in range(low, high + 1)
    ]


def next_name(name: str) -> str | None:
    """The letter after ``name``; None after the last."""
    place = LETTERS.index(name) + 1
    return LETTERS[place] if place < len(LETTERS) else None


def _draw(level: int, rng: random.Random) -> Problem:
    trail, doors = draw_trail(rng.randint(*STEPS_OF_LEVEL[level]), rng)
    return Problem(level=level, start=rng.randrange(MODULUS), trail=trail, doors=doors)

"""Right solutions with errors put in: the verifier's easy negatives, every kind of fault. Pure.

Each step of a solution may get a wrong result, a wrong copy of an operation, a wrong number to start from, or
a wrong door; what follows goes on from what was written. The labels come from the checker, not from here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.lab.checker import Fault
from training.lab.domain import MODULUS, Door, Problem, draw_operation, next_name, solution_text

NEAR = 6  # half of the wrong results are at most this far off: the generator's own errors are often near
SPARE_STEPS = 2  # a corrupted trail may be this much longer than the right one

RATES: tuple[tuple[Fault, float], ...] = (
    (Fault.ARITHMETIC, 0.25),
    (Fault.COPY, 0.10),
    (Fault.VALUE, 0.05),
    (Fault.DOOR, 0.07),
)
WRONG_ANSWER_RATE = 0.08
EXIT_RATE = 0.03


@dataclass(frozen=True)
class Draft:
    """A solution as written: its steps and its answer."""

    steps: tuple[str, ...]
    answer: str

    @property
    def text(self) -> str:
        """The solution's text."""
        return solution_text(self.steps, self.answer)


def corrupt(problem: Problem, rng: random.Random) -> Draft:
    """The right solution of ``problem`` with errors at the rates of ``RATES``; sometimes with none."""
    doors = {door.name: door for door in problem.doors}
    door: Door | None = problem.trail[0]
    value, seen = problem.start, [problem.start]
    steps: list[str] = []
    while door is not None and len(steps) < len(problem.trail) + SPARE_STEPS:
        fault = draw_fault(rng)
        written = door
        if fault is Fault.DOOR:
            written = rng.choice(problem.doors)
        before = wrong_value(value, seen, rng) if fault is Fault.VALUE else value
        shown = wrong_copy(written, problem, rng) if fault is Fault.COPY else written
        result = shown.apply(before)
        if fault is Fault.ARITHMETIC:
            result = wrong_result(result, rng)
        steps.append(shown.step(before, result))
        seen.append(result)
        value = result
        door = _way_on(written, doors, problem, rng)
    answer = wrong_value(value, seen, rng) if rng.random() < WRONG_ANSWER_RATE else value
    return Draft(steps=tuple(steps), answer=str(answer))


def draw_fault(rng: random.Random) -> Fault:
    """Which error, if any, the next step gets."""
    x = rng.random()
    for fault, rate in RATES:
        if x < rate:
            return fault
        x -= rate
    return Fault.NONE


def wrong_result(result: int, rng: random.Random) -> int:
    """Another number: near the right one half of the time."""
    if rng.random() < 0.5:
        return (result + rng.choice((-1, 1)) * rng.randint(1, NEAR)) % MODULUS
    return (result + rng.randrange(1, MODULUS)) % MODULUS


def wrong_value(value: int, seen: list[int], rng: random.Random) -> int:
    """Another number: one that was already seen, or any; now and then the same."""
    return rng.choice(seen) if rng.random() < 0.5 else wrong_result(value, rng)


def wrong_copy(door: Door, problem: Problem, rng: random.Random) -> Door:
    """The same door with another door's operation, or with a random operation or operand."""
    kind = rng.random()
    if kind < 0.5:
        other = rng.choice(problem.doors)
        operation, operand = other.operation, other.operand
    else:
        operation, operand = draw_operation(rng)
        if kind > 0.75 and operation is door.operation:
            operation = door.operation
    return Door(door.name, operation, operand)


def _way_on(door: Door, doors: dict[str, Door], problem: Problem, rng: random.Random) -> Door | None:
    """The next door as the rules say; rarely one goes on after the exit or stops too early."""
    at_exit = door.name == problem.trail[-1].name
    if rng.random() < EXIT_RATE:
        at_exit = not at_exit
    return None if at_exit else doors.get(next_name(door.name) or "")

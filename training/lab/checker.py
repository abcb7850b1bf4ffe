"""The exact checker: which steps of a sampled solution are right, and why the others are wrong. Pure.

A step is judged as written after the step before it: it must go through the door after the previous step's
door (the first through the entrance, none after the exit), apply that door's operation to the number that the
previous step wrote, and give the right result. Judged so, a step's label is a local fact, and a solution is
right exactly when all its steps are right, the last one is at the exit, and the answer repeats its number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from training.lab.domain import WORD_OF, Door, Operation, Problem, next_name

_NUMBER = r"(0|[1-9]\d?)"
_WORDS = "|".join(WORD_OF.values())
_STEP = re.compile(rf"([A-N]): ({_WORDS}) {_NUMBER}, {_NUMBER} ([-+*]) {_NUMBER} = {_NUMBER}", re.ASCII)
_HEADER = "# Answer"


class Fault(StrEnum):
    """What is wrong with a step."""

    NONE = "none"
    MALFORMED = "malformed"
    DOOR = "door"  # not the door that follows
    COPY = "copy"  # an operation that is not the door's
    VALUE = "value"  # not the number of the step before
    ARITHMETIC = "arithmetic"  # the right operation with a wrong result


@dataclass(frozen=True)
class Verdict:
    """The checker's word on one solution; ``faults`` has one entry per step as written."""

    faults: tuple[Fault, ...]
    answer_right: bool
    complete: bool

    @property
    def labels(self) -> tuple[bool, ...]:
        """One label per step: True for right."""
        return tuple(fault is Fault.NONE for fault in self.faults)

    @property
    def all_right(self) -> bool:
        """Every step right, none missing, and the answer right."""
        return self.complete and self.answer_right and all(self.labels)


@dataclass(frozen=True)
class WrittenStep:
    """The parts of a well-formed step; ``door`` is the rule as copied, the rest as computed."""

    door: Door
    value: int
    operation: Operation
    operand: int
    result: int


def parse_step(step: str) -> WrittenStep | None:
    """The parts of ``step``; None when it is malformed."""
    match = _STEP.fullmatch(step)
    if match is None:
        return None
    name, word, copied, value, sign, operand, result = match.groups()
    copy = Door(name, next(o for o, w in WORD_OF.items() if w == word), int(copied))
    return WrittenStep(copy, int(value), Operation(sign), int(operand), int(result))


def judge_step(step: str, value: int | None, expected: str | None, doors: dict[str, Door]) -> Fault:
    """The first fault of ``step``, given the previous step's number and the door expected after it."""
    written = parse_step(step)
    if written is None:
        return Fault.MALFORMED
    door = doors.get(written.door.name)
    if door is None or door.name != expected:
        return Fault.DOOR
    if written.door != door or (door.operation, door.operand) != (written.operation, written.operand):
        return Fault.COPY
    if written.value != value:
        return Fault.VALUE
    return Fault.NONE if door.apply(written.value) == written.result else Fault.ARITHMETIC


def check_steps(problem: Problem, steps: tuple[str, ...] | list[str]) -> tuple[tuple[Fault, ...], int | None, bool]:
    """``(faults, last number, whether the last step is at the exit)`` of the steps as written."""
    doors = {door.name: door for door in problem.doors}
    value: int | None = problem.start
    expected: str | None = problem.trail[0].name
    last = problem.trail[-1].name
    faults, at = [], None
    for step in steps:
        faults.append(judge_step(step, value, expected, doors))
        parsed = parse_step(step)
        value = parsed.result if parsed else None
        at = parsed.door.name if parsed else None
        expected = None if at is None or at == last else next_name(at)
    return tuple(faults), value, at == last


def check(problem: Problem, text: str) -> Verdict:
    """Judge a sampled text: steps, ``# Answer`` header, answer; anything else is malformed."""
    blocks = [block.strip() for block in re.split(r"\n[^\S\n]*\n", text) if block.strip()]
    finished = len(blocks) >= 2 and blocks[-2] == _HEADER
    steps, answer = (blocks[:-2], blocks[-1]) if finished else (blocks, None)
    faults, value, at_exit = check_steps(problem, steps)
    complete = finished and at_exit and value is not None and answer == str(value)
    return Verdict(faults=faults, answer_right=answer == problem.answer, complete=complete)

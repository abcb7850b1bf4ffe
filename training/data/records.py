"""What training data is once it is read: demonstrations, labelled solutions, problems. Pure."""

from __future__ import annotations

from pydantic import Field

from services.core.contracts import NonBlank, Probability, Problem
from services.core.contracts.base import Wire
from services.core.steps import join_steps

Level = int


class DataError(Exception):
    """A file that is not in its format; the message names file and line and quotes nothing of the text."""


class Demonstration(Wire):
    """A problem with a solution to learn from, in the easy-to-hard format."""

    problem: Problem
    solution: NonBlank
    level: Level | None = Field(default=None, ge=1, le=5)


class LabelledSolution(Wire):
    """A solution with what is known of it.

    `labels` has one entry a step: the probability that it is right, None where nothing is known. `outcome` is that of
    the final answer. The answer block, if any, is attached to the last step, as `split_steps` leaves it.
    """

    problem: Problem
    steps: list[NonBlank] = Field(min_length=1)
    labels: list[Probability | None]
    outcome: Probability | None = None
    level: Level | None = Field(default=None, ge=1, le=5)

    @property
    def solution(self) -> str:
        """The text of the solution."""
        return join_steps(self.steps)

    @property
    def right(self) -> bool:
        """The answer is right, and no step is known to be wrong."""
        return self.outcome == 1.0 and all(label is None or label == 1.0 for label in self.labels)

"""The items of work of an evaluation: chunks of samples of one problem, each with its seeds. Pure."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.core.contracts import EvaluationPlan, EvaluationProblem
from services.core.seeds import MAX_SEED


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """Samples `first` to `first + count - 1` of the problem at place `ordinal` of the data set."""

    ordinal: int
    first: int
    count: int

    @property
    def name(self) -> str:
        """Names the item within its evaluation: sorts as the item does, fit for a file or a key."""
        return f"{self.ordinal:07d}-{self.first:04d}-{self.count:04d}"

    @classmethod
    def named(cls, name: str) -> "Item":
        """The item of a `name`. Raises `ValueError`."""
        ordinal, first, count = (int(part) for part in name.split("-"))
        return cls(ordinal, first, count)

    @property
    def indices(self) -> range:
        """The sample indices, within the problem's n."""
        return range(self.first, self.first + self.count)


def items_of(plan: EvaluationPlan, problems: int) -> Iterator[Item]:
    """Every item of an evaluation of so many problems: all of a problem together, which its prefix cache likes."""
    for ordinal in range(problems):
        for first in range(0, plan.n, plan.chunk):
            yield Item(ordinal, first, min(plan.chunk, plan.n - first))


def items_a_problem(plan: EvaluationPlan) -> int:
    """How many items the samples of one problem make."""
    return -(-plan.n // plan.chunk)


def item_at(plan: EvaluationPlan, place: int) -> Item:
    """The item at this place, from 0, of `items_of`."""
    ordinal, chunk = divmod(place, items_a_problem(plan))
    first = chunk * plan.chunk
    return Item(ordinal, first, min(plan.chunk, plan.n - first))


def problem_seed(seed: int, problem_id: str) -> int:
    """The seed under which all samples of a problem are drawn: from the evaluation's seed and the problem's id."""
    digest = hashlib.sha256(f"e2h-problem:{seed}:{problem_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") & MAX_SEED


def digest_of(problems: Sequence[EvaluationProblem]) -> str:
    """SHA-256 over the problems, in order: two data sets with equal digests are the same."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(problem.model_dump_json().encode())
        digest.update(b"\n")
    return digest.hexdigest()

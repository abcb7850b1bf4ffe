"""What is sent: problems with candidate solutions, from a JSONL file; and the bodies made of them. No network."""

import json
import random
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from pydantic import Field, ValidationError

from services.core.contracts import ScoreRequest, SolutionInput, SolveRequest, SolveSampling
from services.core.contracts.base import NonBlank, Problem, Wire
from services.core.errors import InvalidRequest
from services.core.strategies import SolveStrategy
from services.core.voting import Strategy

MakeBody = Callable[[int], bytes]


class WorkItem(Wire):
    """A line of a workload file."""

    problem: Problem
    solutions: list[NonBlank] = Field(default_factory=list)


def default_workload() -> Path:
    """The file that comes with the command: lab problems, made by `python -m training.lab.workload`."""
    return Path(str(resources.files(__package__) / "workload.jsonl"))


def read_workload(path: Path, solutions: int) -> list[WorkItem]:
    """The items of the file. Raises `InvalidRequest` that names the first line that is none or has too few."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {type(error).__name__}") from None
    items = [_item(line, number, solutions) for number, line in enumerate(lines, start=1) if line.strip()]
    if not items:
        raise InvalidRequest(f"{path} holds no problem")
    return items


def _item(line: bytes, number: int, solutions: int) -> WorkItem:
    try:
        item = WorkItem.model_validate_json(line)
    except ValidationError:
        raise InvalidRequest(f'line {number} is not an object {{"problem", "solutions": [...]}}') from None
    if len(item.solutions) < solutions:
        raise InvalidRequest(f"line {number} has {len(item.solutions)} solutions; {solutions} are asked for")
    return item


def score_bodies(items: Sequence[WorkItem], solutions: int, seed: int, fresh: str | None) -> MakeBody:
    """Bodies of `POST /v1/score`, by number: the file's problems in an order of the seed, over and over.

    With `fresh` (digits, another for each run) each problem begins with a number of its own. Then no cache, of prefixes
    or of scores, knows it from an earlier request; a file that is sent over and over would measure those.
    """
    order = _order(len(items), seed)

    def make(number: int) -> bytes:
        item = items[order[number % len(order)]]
        problem = item.problem if fresh is None else f"({fresh}{number}) {item.problem}"
        texts = [SolutionInput(text=text) for text in item.solutions[:solutions]]
        return _encode(ScoreRequest(problem=problem, solutions=texts))

    return make


def solve_bodies(items: Sequence[WorkItem], n: int, strategy: Strategy, max_tokens: int, seed: int) -> MakeBody:
    """Bodies of `POST /v1/solve`, by number, each with a sampling seed of its own."""
    order = _order(len(items), seed)

    def make(number: int) -> bytes:
        sampling = SolveSampling(temperature=1.0, max_tokens=max_tokens, seed=seed + number)
        problem = items[order[number % len(order)]].problem
        return _encode(SolveRequest(problem=problem, n=n, strategy=SolveStrategy(strategy.value), sampling=sampling))

    return make


def _order(count: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(f"workload {seed}").shuffle(order)  # noqa: S311 - load, not a secret
    return order


def _encode(body: ScoreRequest | SolveRequest) -> bytes:
    return json.dumps(body.model_dump(mode="json", exclude_none=True)).encode()

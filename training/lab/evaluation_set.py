"""The lab's held-out problems as the data set `lab` of `e2h eval`. Standard output only; loads no model.

    python -m training.lab.evaluation_set > services/orchestrator/evaluation/data/lab.jsonl

The problems are those of `training.lab.report`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from training.lab.domain import LEVELS
from training.lab.report import EVALUATION_SEED, held_out

PROBLEMS_A_LEVEL = 200


def lines(count: int = PROBLEMS_A_LEVEL, seed: int = EVALUATION_SEED) -> Iterator[str]:
    """One JSON object a problem, levels in order, ``count`` of each."""
    for problem in held_out(LEVELS, count, seed):
        row = {
            "id": problem.identifier,
            "problem": problem.question,
            "answer": problem.answer,
            "level": problem.level,
        }
        yield json.dumps(row)


if __name__ == "__main__":
    print("\n".join(lines()))

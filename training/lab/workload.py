"""Make the workload of the load tester: lab problems with candidate solutions, some of them wrong. Loads no model.

python -m training.lab.workload [--problems 64] [--solutions 16] [--seed 0] > services/cli/bench/workload.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence

from training.lab.corrupt import corrupt
from training.lab.domain import Split, make_problem

LEVELS = (3, 4, 5)  # 4 to 10 steps: the lengths that the demo pair is asked about
FIRST_SEED = 7_000_000  # far from the seeds that the reports use


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a JSON object a line: `problem` and `solutions`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--solutions", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for line in workload(options.problems, options.solutions, options.seed):
        print(line)


def workload(problems: int, solutions: int, seed: int) -> Iterator[str]:
    """The lines; the same on every machine."""
    for place in range(problems):
        problem = make_problem(LEVELS[place % len(LEVELS)], FIRST_SEED + 1_000 * seed + place, Split.HELD_OUT)
        rng = random.Random(f"workload {seed} {place}")
        drafts = [corrupt(problem, rng).text for _ in range(solutions)]
        yield json.dumps({"problem": problem.question, "solutions": drafts})


if __name__ == "__main__":
    main()

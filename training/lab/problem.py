"""Print a held-out problem, for trying a running service by hand. Standard output only; loads no model.

python -m training.lab.problem --level 4 --seed 7 [--solution]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from training.lab.domain import LEVELS, Split, make_problem


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the problem, and with ``--solution`` a blank line and its right solution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", type=int, choices=LEVELS, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--solution", action="store_true", help="print the right solution too")
    options = parser.parse_args(arguments)
    problem = make_problem(options.level, options.seed, Split.HELD_OUT)
    print(problem.question)
    if options.solution:
        print(f"\n{problem.solution}")


if __name__ == "__main__":
    main()

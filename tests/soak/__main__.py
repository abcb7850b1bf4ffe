"""python -m tests.soak [--minutes 10] [--every 10] [--seed S] [--json OUT] [--logs DIRECTORY]

Half load, a fault every so many seconds, then what must hold. The exit code is 1 when something does not.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.soak.run import Outcome, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Half load with faults, then invariants.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds from fault to fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all that was seen there")
    parser.add_argument("--logs", type=Path, help="keep logs and results there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = given.logs or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        outcome = soak(directory, given.minutes, given.every, given.seed)
    if given.json:
        given.json.write_text(json.dumps(outcome.summary(), indent=1))
    show(Console(highlight=False), outcome)
    return 1 if outcome.broken else 0


def show(console: Console, outcome: Outcome) -> None:
    """Faults, requests, jobs, lives, and what does not hold."""
    summary = outcome.summary()
    for fault in outcome.faults:
        console.print(f"{fault['at_s']:7.1f} s  {fault['fault']}: {fault['what']}", markup=False)
    console.print(f"requests {summary['requests']}  jobs {summary['jobs']}  samples {summary['samples']}", markup=False)
    table = Table(title="Growth from the first quarter of a life to its last", title_justify="left")
    for name in ("life", "seconds", "rss KiB", "threads", "descriptors"):
        table.add_column(name)
    for name, life in summary["lives"].items():
        grown = [f"{life[what][1]:+.0f}" for what in ("rss_kib", "threads", "descriptors")]
        table.add_row(name, str(life["seconds"]), *grown)
    console.print(table)
    for line in outcome.broken:
        console.print(f"BROKEN {line}", markup=False, soft_wrap=True)
    console.print("all holds" if not outcome.broken else f"{len(outcome.broken)} do not hold")


if __name__ == "__main__":
    sys.exit(main())

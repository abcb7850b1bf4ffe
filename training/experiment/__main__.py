"""The experiment of Sun et al. (2024) on the lab, from nothing to its page.

    python -m training.experiment CONFIG --out OUT [--page docs/experiment.md] [--processes 2]
    python -m training.experiment CONFIG --out OUT --until oprm     # generator and OPRM alone: the demo pair's way

Each seed is a process of its own, which shares the cores with the others. What is finished under OUT is not made again.
The page is written from what is under OUT alone; its plots stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run

from services.core.errors import InternalError
from services.runtime.machine import cores
from training.experiment.plan import Experiment
from training.experiment.stages import TRAINED, SeedRun, write_problems
from training.recipes.commands import recipe_parser, run_command
from training.recipes.config import ConfigError, load_recipe


def main() -> None:
    """Train, evaluate, write the page."""
    parser = recipe_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="models, samples and reports, kept")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--page", type=Path, help="the Markdown page to write")
    ends.add_argument("--until", choices=TRAINED, help="train no further than this model, and evaluate nothing")
    parser.add_argument("--processes", type=int, default=1, help="seeds at a time")
    parser.add_argument("--only", type=int, metavar="SEED", help=argparse.SUPPRESS)
    run_command(lambda: _experiment(parser.parse_args()))


def _experiment(options: argparse.Namespace) -> str:
    experiment = load_recipe(Experiment, options.config, options.overrides)
    if options.only is not None:
        SeedRun(experiment, options.only, options.out).run(options.until)
        return f"seed {options.only} done"
    options.out.mkdir(parents=True, exist_ok=True)
    _same_plan(experiment, options.out)
    write_problems(experiment, options.out)
    _all_seeds(experiment.seeds, options)
    if options.page is None:
        return str(options.out)
    # scipy and matplotlib: seconds to import, not needed to train.
    from training.experiment.page import write_page

    write_page(experiment, options.out, options.page, options.config)
    return str(options.page)


def _same_plan(experiment: Experiment, out: Path) -> None:
    """Refuse to mix two plans under one folder: what is there would be taken for this one's."""
    file, told = out / "plan.json", experiment.model_dump_json(indent=1)
    if file.exists() and json.loads(file.read_text()) != json.loads(told):
        raise ConfigError(f"--out: {out} holds another experiment; name another folder")
    file.write_text(told + "\n", encoding="utf-8")


def _all_seeds(seeds: Sequence[int], options: argparse.Namespace) -> None:
    """Every seed in a process of its own, `processes` at a time; raises when one fails."""
    threads = max(1, cores() // options.processes)
    with ThreadPoolExecutor(options.processes) as pool:
        codes = list(pool.map(lambda seed: _process(seed, options, threads), seeds))
    failed = [seed for seed, code in zip(seeds, codes, strict=True) if code != 0]
    if failed:
        raise InternalError(f"seeds {failed} failed: see their log.txt under {options.out}")


def _process(seed: int, options: argparse.Namespace, threads: int) -> int:
    overrides = [part for override in options.overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "training.experiment", str(options.config), "--out", str(options.out)]
    until = ["--until", options.until] if options.until else []
    folder = options.out / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        made = run(  # noqa: S603 - our own module
            [*command, "--only", str(seed), *until, *overrides],
            stdout=log,
            stderr=log,
            # vLLM would bind its threads to cores that the other seeds use.
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
            check=False,
        )
    return made.returncode


if __name__ == "__main__":
    main()

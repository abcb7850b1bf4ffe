"""The lab's report: does weighted voting with the verifier beat majority voting on hard problems?

    python -m training.lab.report --n 64 [--problems 200] [--levels 1 2 3 4 5] [--seed S] [--out OUT]

Samples held-out problems with vLLM, scores every sample with the verifier, and writes ``report.json`` and
``report.md``. Samples are kept in ``samples-<model>.json`` under OUT and read again when the options are the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.judging.scoring import Scorer
from training.lab.domain import EASY_LEVELS, HARD_LEVELS, LEVELS, Problem, Split, make_problem
from training.lab.generation import Sample, generate
from training.lab.judgements import Judged, judge_all
from training.lab.quality import quality
from training.lab.tables import accuracy_rows, markdown

GROUPS = {"easy": EASY_LEVELS, "hard": HARD_LEVELS}
EVALUATION_SEED = 7_000_000
TEMPERATURE = 1.0


def held_out(levels: Sequence[int], count: int, seed: int) -> list[Problem]:
    """``count`` held-out problems of every level."""
    return [make_problem(level, seed + i, Split.HELD_OUT) for level in levels for i in range(count)]


def samples_of(model: Path, name: str, problems: Sequence[Problem], options: argparse.Namespace) -> list[list[Sample]]:
    """Sample, or read back what an earlier run of the same options sampled."""
    key = {"model": str(model), "n": options.n, "seed": options.seed, "problems": [p.identifier for p in problems]}
    file = options.out / f"samples-{name}.json"
    if file.exists():
        stored = json.loads(file.read_text())
        if stored["key"] == key:
            return [[Sample(**sample) for sample in group] for group in stored["samples"]]
    questions = [problem.question for problem in problems]
    groups = generate(model, questions, options.n, seed=options.seed, temperature=TEMPERATURE)
    file.write_text(json.dumps({"key": key, "samples": [[asdict(s) for s in group] for group in groups]}))
    return groups


def build(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of the report."""
    problems = held_out(options.levels, options.problems, options.seed)
    started = time.monotonic()
    scorer = Scorer(options.verifier)
    judged = judge_all(problems, samples_of(options.generator, "generator", problems, options), scorer)
    control: list[Judged] | None = None
    if options.control is not None:
        control = judge_all(problems, samples_of(options.control, "control", problems, options), scorer)
    report: dict[str, Any] = {
        "n": options.n,
        "problems_per_level": options.problems,
        "seed": options.seed,
        "temperature": TEMPERATURE,
        "shipped": scorer.model.info.default_aggregation.value,
        "groups": {},
    }
    for name, levels in [*GROUPS.items(), *((f"level {level}", (level,)) for level in options.levels)]:
        chosen = [j for j in judged if j.problem.level in levels]
        if chosen:
            others = [j for j in control if j.problem.level in levels] if control is not None else None
            report["groups"][name] = {
                "rows": accuracy_rows(chosen, others, options.n, options.draws),
                "quality": quality(chosen, scorer.model.info.default_aggregation),
            }
    report["seconds"] = round(time.monotonic() - started)
    return report


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--generator", type=Path, default=Path("models/generator"))
    made.add_argument("--verifier", type=Path, default=Path("models/verifier"))
    made.add_argument("--control", type=Path, help="the generator fine-tuned on the verifier's right solutions")
    made.add_argument("--n", type=int, default=64)
    made.add_argument("--problems", type=int, default=200, help="held-out problems of each level")
    made.add_argument("--levels", type=int, nargs="+", default=list(LEVELS), choices=LEVELS)
    made.add_argument("--seed", type=int, default=EVALUATION_SEED)
    made.add_argument("--draws", type=int, default=50, help="random subsets of a problem's samples when N is smaller")
    made.add_argument("--out", type=Path, default=Path("lab-report"))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, write and print the report."""
    options = parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    report = build(options)
    (options.out / "report.json").write_text(json.dumps(report, indent=1))
    text = markdown(report)
    (options.out / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""How long a re-vote takes: `python -m benchmarks.estimators [--problems 500] [--n 256]`, on one core.

Made-up samples of an OPRM (every aggregation, and the generator's likelihoods) are stored as an evaluation stores them;
then timed: reading them, voting with every rule at every k, intervals and quality of every group, and the files. Prints
the report and writes it under benchmarks/results/.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.machine import cores_for, describe, load
from benchmarks.report import write
from services.core.aggregation import Aggregation
from services.core.contracts import EvaluationPlan, EvaluationProblem, Manifest, ServedVerifier
from services.orchestrator.evaluation.arrays import arrays_of
from services.orchestrator.evaluation.curves import count_votes, rules_for
from services.orchestrator.evaluation.items import Item, digest_of
from services.orchestrator.evaluation.report import build_report, write_report
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.evaluation.store import ResultsStore

RESULTS = Path(__file__).resolve().parent / "results"
Made = TypeVar("Made")
_WRONG_ANSWERS = 200  # that a problem draws from, the earlier the likelier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    os.sched_setaffinity(0, cores_for(1, "cpu"))
    libraries = {name: metadata.version(name) for name in ("numpy", "scipy", "pyarrow")}
    machine = {**describe("cpu"), "libraries": libraries, "load_before": load()}
    with tempfile.TemporaryDirectory() as place:
        store = made_up(place, options.problems, options.n)
        report = {"date": date.today().isoformat(), "machine": machine, **vars(options), **timed(store, options.draws)}
    print(json.dumps(report, indent=1))
    print(write("estimators", report, RESULTS, date.today()).name)


def timed(store: ResultsStore, draws: int) -> dict[str, Any]:
    """Seconds of processor and of the clock, of the parts and of the whole."""
    sampled, reading = _clocked(lambda: list(store.read()))
    problems, making = _clocked(lambda: [arrays_of(one, list(Aggregation)) for one in sampled])
    rules = rules_for(list(Aggregation), problems)
    _, voting = _clocked(lambda: count_votes(problems, rules, draws, 0))
    report, building = _clocked(lambda: build_report(store, draws=draws))
    _, writing = _clocked(lambda: write_report(report, "memory://report"))
    return {
        "rules": [rule.label for rule in rules],
        "sizes": [point.k for point in report.groups[0].curves[0].points],
        "most_classes_of_a_problem": _WRONG_ANSWERS + 1,
        "read": reading,
        "arrays": making,
        "vote": voting,
        "build_report_in_all": building,
        "write_report": writing,
    }


def _clocked(make: Callable[[], Made]) -> tuple[Made, dict[str, float]]:
    began, busy = time.perf_counter(), time.process_time()
    made = make()
    return made, {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - busy, 2),
    }


def made_up(place: str, count: int, n: int) -> ResultsStore:
    """A finished evaluation."""
    rng = random.Random(1)
    problems = [EvaluationProblem(id=f"p{i}", problem=f"{i}?", answer="1", level=1 + i % 5) for i in range(count)]
    verifier = ServedVerifier(id="made-up", kind="oprm", default_aggregation=Aggregation.MIN)
    manifest = Manifest(
        dataset="made up",
        digest=digest_of(problems),
        problems=count,
        plan=EvaluationPlan(n=n, chunk=n),
        generator="made-up",
        verifier=verifier,
    )
    store = ResultsStore(place)
    store.begin(manifest, problems)
    for ordinal, problem in enumerate(problems):
        level = problem.level or 3
        share = min(0.95, max(0.05, rng.gauss(0.95 - 0.15 * level, 0.15)))
        store.write_part(Item(ordinal, 0, n), [_sample(rng, share, level, i) for i in range(n)])
    store.finish()
    return store


def _sample(rng: random.Random, share: float, level: int, index: int) -> ScoredSample:
    right = rng.random() < share
    wrong = 2 + min(int(rng.paretovariate(0.6)), _WRONG_ANSWERS)
    answer = None if rng.random() < 0.05 else "1" if right else str(wrong)
    scores = tuple(rng.betavariate(5, 1) if right else rng.betavariate(2, 1) for _ in range(4 + level))
    return ScoredSample(
        text=f"sample {index} " + 10 * level * "tokens ",
        answer=answer,
        key=None if answer is None else f"n:{answer}",
        correct=answer == "1",
        finish_reason="stop",
        tokens=50 + 10 * level,
        logprob=-20 * rng.random(),
        seed=index,
        scores=scores,
        outcome=rng.betavariate(3, 1) if right else rng.betavariate(1, 2),
        verifier_tokens=80 + 10 * level,
        error=None,
    )


if __name__ == "__main__":
    main()

"""Does step-level search help? `python -m benchmarks.search [--problems 50]`: the demo pair, on the lab.

Held-out hard problems (levels 4 and 5, `--problems` of each) are solved by the service's own solver with beam and dvts,
and by whole samples; real vLLM, the real reward model, one process. Whole samples are compared at equal cost: of one
pool of samples of a problem, as many as come closest to the tokens that the search drew for the same problem. What a
search reads again at every step (the problem and its steps so far) is not counted.

Prints the report and writes it under benchmarks/results/. Accuracies are shares of problems; intervals 95 % bootstraps
over problems, differences paired.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, load
from benchmarks.report import write
from services.allinone import AllInOne
from services.core.contracts import SearchOptions, SolveCandidate, SolveRequest, SolveResponse, SolveSampling
from services.core.equivalence import canonical_key
from services.core.strategies import SolveStrategy
from services.core.voting import Candidate, Strategy, select
from services.generator.settings import GeneratorSettings
from services.verifier.settings import VerifierSettings
from training.lab.domain import HARD_LEVELS, Problem
from training.lab.estimates import Estimate, bootstrap
from training.lab.report import held_out

RESULTS = Path(__file__).resolve().parent / "results"
SEARCHES = (SolveStrategy.BEAM, SolveStrategy.DVTS)
RULES = (Strategy.BEST_OF_N, Strategy.WEIGHTED, Strategy.MAJORITY)
# A fresh set: neither the report's problems nor those that its design was frozen on.
SEED = 11_000_000
TEMPERATURE = 1.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--generator", default="models/generator")
    made.add_argument("--verifier", default="models/verifier")
    made.add_argument("--problems", type=int, default=50, help="held-out problems of each hard level")
    made.add_argument("--beam-width", type=int, default=4)
    made.add_argument("--expand", type=int, default=4)
    made.add_argument("--pool", type=int, default=32, help="whole samples of a problem to choose from")
    made.add_argument("--callers", type=int, default=4, help="problems under way at the same time")
    made.add_argument("--minutes", type=float, default=10.0, help="begin no further problem after so long")
    made.add_argument("--seed", type=int, default=SEED)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Solve, compare, print, write."""
    options = parser().parse_args(arguments)
    # The levels in turn, so that what fits into the time is of both alike.
    of_levels = [held_out([level], options.problems, options.seed) for level in HARD_LEVELS]
    problems = [problem for pair in zip(*of_levels, strict=True) for problem in pair]
    began = time.perf_counter()
    solved = asyncio.run(solve_all(problems, options))
    problems = problems[: len(solved)]
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": {**describe("cpu"), "load_after": load()},
        "options": vars(options),
        "temperature": TEMPERATURE,
        "problems": len(problems),
        "seconds": round(time.perf_counter() - began),
        "searches": [compare(problems, solved, strategy) for strategy in SEARCHES],
    }
    print(table(report["searches"]))
    print(write("search", report, RESULTS, date.today()).name)


Solved = dict[str, SolveResponse]


async def solve_all(problems: Sequence[Problem], options: argparse.Namespace) -> list[Solved]:
    """Every problem that is begun in time, by each search and by a pool of whole samples."""
    everything = AllInOne(GeneratorSettings(model=options.generator), VerifierSettings(model=options.verifier))
    await everything.start()
    waiting, solved = iter(enumerate(problems)), {}
    ends = time.monotonic() + 60 * options.minutes

    async def caller() -> None:
        for place, problem in waiting:
            if time.monotonic() > ends:
                return
            asked = requests(problem, options)
            solved[place] = {name: await everything.solver.solve(request) for name, request in asked}
            print(f"{len(solved)} of {len(problems)}", file=sys.stderr, flush=True)

    try:
        await asyncio.gather(*(caller() for _ in range(options.callers)))
    finally:
        await everything.close()
    return [solved[place] for place in sorted(solved)]


def requests(problem: Problem, options: argparse.Namespace) -> list[tuple[str, SolveRequest]]:
    """What is asked of one problem, by name."""
    sampling = SolveSampling(temperature=TEMPERATURE, max_tokens=400, seed=options.seed)
    shape = SearchOptions(beam_width=options.beam_width, expand=options.expand)
    asked = [
        (each.value, SolveRequest(problem=problem.question, strategy=each, search=shape, sampling=sampling))
        for each in SEARCHES
    ]
    return [*asked, ("pool", SolveRequest(problem=problem.question, n=options.pool, sampling=sampling))]


def compare(problems: Sequence[Problem], solved: Sequence[Solved], search: SolveStrategy) -> dict[str, Any]:
    """One search against whole samples of the same number of drawn tokens, problem by problem."""
    searched = [each[search.value] for each in solved]
    budgets = [affordable(each["pool"].candidates, each[search.value].usage.completion_tokens) for each in solved]
    samples = [each["pool"].candidates[:k] for each, k in zip(solved, budgets, strict=True)]
    found = [float(same(r.answer, p.answer)) for r, p in zip(searched, problems, strict=True)]
    whole = {rule: accuracies(samples, problems, rule) for rule in RULES}
    finished = [r.candidates for r in searched]
    computed = sum(r.usage.verifier_tokens_computed for r in searched)
    return {
        "strategy": search.value,
        "accuracy": shown(bootstrap(found)),
        "tokens_drawn_mean": mean([r.usage.completion_tokens for r in searched]),
        "whole_samples_mean": mean(budgets),
        "whole_samples_tokens_mean": mean([sum(c.tokens for c in each) for each in samples]),
        "pool_too_small": sum(k == len(each["pool"].candidates) for each, k in zip(solved, budgets, strict=True)),
        "finished_mean": mean([sum(c.excluded is None for c in each) for each in finished]),
        "oracle_of_finished": shown(bootstrap(oracles(finished, problems))),
        "same_finished_by": {rule.value: shown(bootstrap(accuracies(finished, problems, rule))) for rule in RULES},
        "whole_samples": {rule.value: shown(bootstrap(values)) for rule, values in whole.items()},
        "oracle_of_whole_samples": shown(bootstrap(oracles(samples, problems))),
        "search_minus": {
            rule.value: shown(bootstrap([a - b for a, b in zip(found, values, strict=True)]))
            for rule, values in whole.items()
        },
        "verifier_tokens_computed_share": round(computed / sum(r.usage.verifier_tokens for r in searched), 4),
        "generate_ms_mean": mean([r.timings_ms.generate for r in searched]),
        "pool_generate_ms_mean": mean([each["pool"].timings_ms.generate for each in solved]),
    }


def affordable(samples: Sequence[SolveCandidate], tokens: int) -> int:
    """How many of the samples come closest to so many tokens; at least one."""
    spent, best, nearest = 0, 1, None
    for k, sample in enumerate(samples, start=1):
        spent += sample.tokens
        if nearest is None or abs(spent - tokens) < nearest:
            best, nearest = k, abs(spent - tokens)
    return best


def accuracies(groups: Sequence[Sequence[SolveCandidate]], problems: Sequence[Problem], rule: Strategy) -> list[float]:
    """1.0 for each problem whose candidates elect the right answer under `rule`."""
    elected = [select([voter(c) for c in group], rule).answer for group in groups]
    return [float(same(answer, problem.answer)) for answer, problem in zip(elected, problems, strict=True)]


def oracles(groups: Sequence[Sequence[SolveCandidate]], problems: Sequence[Problem]) -> list[float]:
    """1.0 for each problem of which some candidate has the right answer."""
    pairs = zip(groups, problems, strict=True)
    return [float(any(same(c.answer, problem.answer) for c in group)) for group, problem in pairs]


def voter(candidate: SolveCandidate) -> Candidate:
    """A candidate as the vote sees it."""
    return Candidate(candidate.index, candidate.answer, candidate.score, candidate.finish_reason != "stop")


def same(answer: str | None, right: str) -> bool:
    """Whether the answer is the right one."""
    return answer is not None and canonical_key(answer) == canonical_key(right)


def mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 1)


def shown(estimate: Estimate) -> list[float]:
    """Mean and interval, for JSON."""
    return [round(value, 4) for value in (estimate.mean, estimate.low, estimate.high)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown, in %."""
    lines = [
        "| search | accuracy | tokens drawn | whole samples | rule | accuracy | search minus it |",
        "|" + "---|" * 7,
    ]
    for row in rows:
        for rule in RULES:
            lines.append(
                f"| {row['strategy']} | {percent(row['accuracy'])} | {row['tokens_drawn_mean']} "
                f"| {row['whole_samples_mean']} | {rule.value} | {percent(row['whole_samples'][rule.value])} "
                f"| {percent(row['search_minus'][rule.value])} |"
            )
    return "\n".join(lines)


def percent(numbers: Sequence[float]) -> str:
    middle, low, high = (f"{100 * number:.1f}" for number in numbers)
    return f"{middle} [{low}, {high}]"


if __name__ == "__main__":
    main()

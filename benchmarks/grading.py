"""How fast answers are compared: `python -m benchmarks.grading PAIRS.jsonl [--solve N]`.

* cold: pairs a second of one fresh worker process, nothing remembered by it or by the pool;
* warm: the same pairs again, from the pool's memory;
* solve: the share of `vote` (keys of all answers, the choice, the grade against a reference) in a solve of the demo
  pair with N candidates, real engine and real verifier.

Throughput is of one core: the pool has one worker, and the caller's own core does nothing but ask. Prints the report
and writes it under benchmarks/results/.
"""

import argparse
import asyncio
import json
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.machine import describe, load
from benchmarks.report import write
from services.core.contracts import SolveRequest, SolveSampling
from services.core.equivalence import Mode
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings

Pairs = list[tuple[str, str]]
RESULTS = Path(__file__).resolve().parent / "results"
_ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--solve", type=int, metavar="N", help="also time a solve with N candidates")
    options = parser.parse_args()
    pairs = read(options.pairs)
    report: dict[str, Any] = {"date": date.today().isoformat(), "machine": {**describe("cpu"), "load_before": load()}}
    report |= {"pairs": len(pairs), **asyncio.run(throughput(pairs))}
    if options.solve:
        report["solve"] = asyncio.run(solve(options.solve))
    print(json.dumps(report, indent=1))
    print(write("grading", report, RESULTS, date.today()).name)


def read(file: Path) -> Pairs:
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [(row["gold"], row["pred"]) for row in rows]


async def throughput(pairs: Pairs) -> dict[str, Any]:
    """Pairs a second, cold and warm, medians over rounds with fresh processes."""
    cold, warm = [], []
    timed_out = 0
    for _ in range(_ROUNDS):
        pool = GradingPool(GradingSettings(workers=1), GradingMetrics(CollectorRegistry()))
        await pool.start()
        began = time.perf_counter()
        verdicts = await pool.grade(pairs, Mode.REFERENCE)
        cold.append(len(pairs) / (time.perf_counter() - began))
        timed_out += sum(verdict.timed_out for verdict in verdicts)
        began = time.perf_counter()
        for _ in range(20):
            await pool.grade(pairs, Mode.REFERENCE)
        warm.append(20 * len(pairs) / (time.perf_counter() - began))
        await pool.close()
    return {
        "cold_pairs_per_s_per_core": round(statistics.median(cold)),
        "cold_range": [round(min(cold)), round(max(cold))],
        "warm_pairs_per_s": round(statistics.median(warm)),
        "warm_range": [round(min(warm)), round(max(warm))],
        "timed_out": timed_out,
    }


async def solve(n: int) -> dict[str, Any]:
    """Where the time of one solve of the demo pair goes."""
    from services.allinone import AllInOne  # vllm and torch, needed with --solve alone
    from services.generator.settings import GeneratorSettings
    from services.verifier.settings import VerifierSettings
    from training.lab.domain import make_problem

    problem = make_problem(level=4, seed=15)
    everything = AllInOne(GeneratorSettings(), VerifierSettings())
    await everything.start()
    try:
        request = SolveRequest(
            problem=problem.question,
            n=n,
            sampling=SolveSampling(temperature=1.0, seed=7),
            reference=problem.answer,
        )
        response = await everything.solver.solve(request)
    finally:
        await everything.close()
    timings = response.timings_ms
    return {
        "n": n,
        "distinct_answers": len({c.answer for c in response.candidates if c.answer is not None}),
        "vote_ms": round(timings.vote, 1),
        "total_ms": round(timings.total, 1),
        "vote_share": round(timings.vote / timings.total, 5),
    }


if __name__ == "__main__":
    main()

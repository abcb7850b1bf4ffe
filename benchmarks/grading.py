"""How fast answers are compared: `python -m benchmarks.grading PAIRS.jsonl [--solve N] [--out FILE]`.

* cold: pairs a second of one fresh worker process, nothing remembered by it or by the pool;
* warm: the same pairs again, from the pool's memory;
* solve: the share of `vote` (keys of all answers, the choice, the grade against a reference) in a solve of the demo
  pair with N candidates, real engine and real verifier.

Throughput is of one core: the pool has one worker, and the caller's own core does nothing but ask.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from services.core.contracts import SolveRequest, SolveSampling
from services.core.equivalence import Mode
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings

Pairs = list[tuple[str, str]]
_ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--solve", type=int, metavar="N", help="also time a solve with N candidates")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    pairs = read(options.pairs)
    result = {"machine": machine(), "date": datetime.now(UTC).isoformat(timespec="seconds"), "pairs": len(pairs)}
    result |= asyncio.run(throughput(pairs))
    if options.solve:
        result["solve"] = asyncio.run(solve(options.solve))
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def read(file: Path) -> Pairs:
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [(row["gold"], row["pred"]) for row in rows]


def machine() -> dict[str, Any]:
    """The processor as the system names it, and how many cores this process may use."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


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

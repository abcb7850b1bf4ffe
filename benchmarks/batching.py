"""What gathering callers is worth: the same callers with dynamic batching and with one solution a forward pass.

    python benchmarks/batching.py [--callers 32] [--requests 640] [--repeats 3]

Every caller scores single solutions of the lab on the demo verifier, one after the other, through the service's own
queue (no HTTP, which would cost both sides the same). Prints a table and writes it as JSON under benchmarks/results/.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:  # started by its path, as the documentation shows
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from prometheus_client import CollectorRegistry

from benchmarks.clock import Clock
from benchmarks.machine import describe, load
from benchmarks.report import write
from services.core.contracts import ScoreRequest, SolutionInput
from services.verifier.metrics import VerifierMetrics
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings
from training.lab.corrupt import corrupt
from training.lab.domain import make_problem

RESULTS = Path(__file__).resolve().parent / "results"
_LEVELS = (3, 4, 5)
# The least that the setting takes: whatever is next goes, and with it nothing else.
_ONE_SOLUTION_TOKENS = 64
# How many callers in a row score solutions of the same problem: a solve's samples come like that.
_SHARING = {"a problem each": 1, "a problem for 16": 16}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    machine = {**describe("cpu"), "load_before": load()}
    entries = [asyncio.run(_compare(name, share, options)) for name, share in _SHARING.items()]
    print(_text(entries))
    report = {"date": date.today().isoformat(), "machine": machine, "settings": vars(options), "workloads": entries}
    print(f"\n{write('batching', report, RESULTS, date.today()).name}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--callers", type=int, default=32)
    made.add_argument("--requests", type=int, default=640)
    made.add_argument("--repeats", type=int, default=3)
    return made.parse_args(arguments)


async def _compare(name: str, share: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways in turn; each repeat has solutions of its own, so that nothing is known from before."""
    ways = {"gathered": None, "one by one": _ONE_SOLUTION_TOKENS}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(options.repeats):
        for way, tokens in ways.items():
            rates[way].append(await _rate(tokens, list(_requests(options.requests, share, repeat)), options.callers))
    ratios = [a / b for a, b in zip(rates["gathered"], rates["one by one"], strict=True)]
    return {
        "name": name,
        "solutions_per_s": {way: [round(rate, 1) for rate in some] for way, some in rates.items()},
        "ratio": [round(ratio, 3) for ratio in ratios],
        "ratio_median": round(median(ratios), 3),
    }


async def _rate(batch_tokens: int | None, requests: Sequence[ScoreRequest], callers: int) -> float:
    """Solutions a second."""
    verifier = LocalVerifier(VerifierSettings(max_batch_tokens=batch_tokens), VerifierMetrics(CollectorRegistry()))
    await verifier.start()
    await asyncio.gather(*(verifier.score(request) for request in _requests(callers, 1, -1)))  # warms it
    left = iter(requests)

    async def call() -> None:
        for request in left:
            response, _ = await verifier.score(request)
            if response.solutions[0].error is not None:
                raise RuntimeError("a solution was not scored")

    with Clock("cpu") as clock:
        await asyncio.gather(*(call() for _ in range(callers)))
    await verifier.close()
    return len(requests) / clock.seconds


def _requests(count: int, share: int, repeat: int) -> Iterator[ScoreRequest]:
    draw = random.Random(repeat)
    for place in range(count):
        group = place // share
        problem = make_problem(_LEVELS[group % len(_LEVELS)], 1_000_000 * (repeat + 2) + group)
        yield ScoreRequest(problem=problem.question, solutions=[SolutionInput(text=corrupt(problem, draw).text)])


def _text(entries: Sequence[dict[str, Any]]) -> str:
    lines = ["| callers have | gathered, solutions/s | one by one, solutions/s | ratio |", "|---|---|---|---|"]
    for one in entries:
        gathered, alone = (median(one["solutions_per_s"][way]) for way in ("gathered", "one by one"))
        lines.append(f"| {one['name']} | {gathered:.0f} | {alone:.0f} | {one['ratio_median']:.2f}x |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""What an early stop saves, and what it changes: `python -m benchmarks.early_stop [--limit 20] [--out FILE]`.

Held-out problems of the lab, N samples of the demo generator (vLLM), scores of the demo verifier; then every problem
is solved by the service's own solver over these samples, once to the end and once with each rule, as `slots` decoding
slots would have delivered them (`replay.py`; a score takes no time there, so a slow verifier saves less).

* saved: tokens that were not decoded, of those of the full run, over all problems;
* identical: share of problems whose answer is that of the full run (lossless must have 100 %);
* used: samples that the answer rests on, mean; accuracy: right answers, stopped and full.

Samples are kept under --work and read again when the options are the same.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prometheus_client import CollectorRegistry

from benchmarks.replay import QuickGrader, ReplayGenerator, ReplayVerifier
from services.core.contracts import SolveRequest, SolveResponse, VerifierInfo
from services.core.equivalence import canonical_key
from services.core.strategies import SolveStrategy
from services.core.voting import Strategy
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.solver import Solver
from training.judging.scoring import Scorer
from training.lab.domain import EASY_LEVELS, LEVELS
from training.lab.estimates import bootstrap
from training.lab.judgements import Judged, judge_all
from training.lab.report import EVALUATION_SEED, TEMPERATURE, held_out, samples_of

Rule = Literal[False, "lossless", "confident"]
STRATEGIES = (Strategy.WEIGHTED, Strategy.MAJORITY)
RULES: tuple[Rule, ...] = ("lossless", "confident")
Solved = tuple[SolveResponse, int]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--generator", type=Path, default=Path("models/generator"))
    made.add_argument("--verifier", type=Path, default=Path("models/verifier"))
    made.add_argument("--n", type=int, default=64)
    made.add_argument("--limit", type=int, default=200, help="held-out problems of each level")
    made.add_argument("--slots", type=int, nargs="+", default=[64, 16, 8], help="samples decoded at the same time")
    made.add_argument("--seed", type=int, default=EVALUATION_SEED)
    made.add_argument("--work", type=Path, default=Path("out/early-stop"))
    made.add_argument("--out", type=Path, help="write the result as JSON")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, score, replay, print."""
    options = parser().parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    options.out, result_file = options.work, options.out  # `samples_of` keeps its samples under `out`
    scorer = Scorer(options.verifier)
    problems = held_out(LEVELS, options.limit, options.seed)
    judged = judge_all(problems, samples_of(options.generator, "generator", problems, options), scorer)
    rows = [
        row
        for slots in options.slots
        for strategy in STRATEGIES
        for row in asyncio.run(measure(judged, scorer.model.info, strategy, slots))
    ]
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "n": options.n,
        "temperature": TEMPERATURE,
        "problems": len(problems),
        "seed": options.seed,
        "rows": rows,
    }
    if result_file:
        result_file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


async def measure(judged: Sequence[Judged], info: VerifierInfo, strategy: Strategy, slots: int) -> list[dict[str, Any]]:
    """A row for each rule and group of levels."""
    full = [await solve(each, info, strategy, slots, False) for each in judged]
    rows = []
    for rule in RULES:
        stopped = [await solve(each, info, strategy, slots, rule) for each in judged]
        for group in ("all", "easy", "hard"):
            chosen = [i for i, each in enumerate(judged) if group in ("all", _group(each))]
            row = compare([judged[i] for i in chosen], [full[i] for i in chosen], [stopped[i] for i in chosen])
            rows.append({"slots": slots, "strategy": strategy.value, "rule": rule, "levels": group, **row})
    return rows


async def solve(judged: Judged, info: VerifierInfo, strategy: Strategy, slots: int, rule: Rule) -> Solved:
    """The answer of the service's solver, and the tokens that were decoded for it."""
    generator = ReplayGenerator(judged.samples, slots)
    known = dict(zip((s.text for s in judged.samples), judged.scores, strict=True))
    solver = Solver(generator, ReplayVerifier(info, known), QuickGrader(), SolveMetrics(CollectorRegistry()))
    request = SolveRequest(
        problem=judged.problem.question,
        n=len(judged.samples),
        strategy=SolveStrategy(strategy.value),
        early_stop=rule,
        reference=judged.problem.answer,
        include_candidates=False,
    )
    return await solver.solve(request), generator.written


def compare(judged: Sequence[Judged], full: Sequence[Solved], stopped: Sequence[Solved]) -> dict[str, Any]:
    """The numbers of one row; shares in [0, 1], intervals 95 % bootstraps over problems."""
    spent, written = sum(tokens for _, tokens in full), sum(tokens for _, tokens in stopped)
    same = [float(_class(a.answer) == _class(b.answer)) for (a, _), (b, _) in zip(full, stopped, strict=True)]
    shares = [1.0 - b / a for (_, a), (_, b) in zip(full, stopped, strict=True)]
    share = bootstrap(shares)
    return {
        "problems": len(judged),
        "tokens_full": spent,
        "tokens_stopped": written,
        "saved": round(1.0 - written / spent, 4),
        "saved_per_problem": [round(share.mean, 4), round(share.low, 4), round(share.high, 4)],
        "identical": round(sum(same) / len(same), 4),
        "changed": int(len(same) - sum(same)),
        "used_mean": round(sum(r.used for r, _ in stopped) / len(stopped), 1),
        "stopped_share": round(sum(r.stopped_early for r, _ in stopped) / len(stopped), 4),
        "accuracy_full": round(sum(bool(r.correct) for r, _ in full) / len(full), 4),
        "accuracy_stopped": round(sum(bool(r.correct) for r, _ in stopped) / len(stopped), 4),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    head = "| slots | strategy | rule | levels | tokens saved | identical | used | accuracy (full) |\n|" + "---|" * 8
    lines = [
        f"| {r['slots']} | {r['strategy']} | {r['rule']} | {r['levels']} | {100 * r['saved']:.1f} % "
        f"| {100 * r['identical']:.1f} % ({r['changed']} of {r['problems']} changed) | {r['used_mean']} "
        f"| {100 * r['accuracy_stopped']:.1f} ({100 * r['accuracy_full']:.1f}) |"
        for r in rows
    ]
    return "\n".join([head, *lines])


def _group(judged: Judged) -> str:
    return "easy" if judged.problem.level in EASY_LEVELS else "hard"


def _class(answer: str | None) -> str | None:
    return None if answer is None else canonical_key(answer)


if __name__ == "__main__":
    main()

"""The benchmark's table and its JSON. Pure but for the one file that is written."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gemm import Gemms
from benchmarks.machine import slug
from benchmarks.running import Measured, Table

OURS = "ours"
_HEAD = (
    "method",
    "tokens computed",
    "s, min",
    "s, median",
    "cpu s, median",
    "ours is faster by",
    "by cpu s",
    "GEMM share",
    "time / GEMM limit",
    "largest difference",
)


def entry(table: Table, gemms: Gemms, tolerance: float) -> dict[str, Any]:
    """One workload's numbers, for the JSON and for the table."""
    workload = table.workload
    return {
        "name": workload.name,
        "shape": asdict(workload.shape),
        "problems": len(workload.problems),
        "sequences": sum(len(level) for problem in workload.problems for level in problem.levels),
        "tokens": workload.tokens,
        "unique_tokens": workload.unique,
        "ceiling": round(workload.shape.ceiling, 3),
        "tokens_by_unique": round(workload.tokens / workload.unique, 3),
        "gemm_limit_seconds": [round(clock.seconds, 4) for clock in table.limit],
        "gemm_limit_cpu_seconds": [round(clock.busy, 4) for clock in table.limit],
        "methods": [_method(table, measured, gemms, tolerance) for measured in table.methods],
    }


def _method(table: Table, measured: Measured, gemms: Gemms, tolerance: float) -> dict[str, Any]:
    ours = table.method(OURS)
    by_limit = table.by_limit(measured)
    limit = median(clock.own for clock in table.limit)
    return {
        "name": measured.name,
        "tokens_computed": measured.computed,
        "seconds": [round(value, 4) for value in measured.seconds],
        "cpu_seconds": [round(value, 4) for value in measured.busy],
        "by_ours": None if ours is None else round(measured.slower_than(ours), 3),
        "by_ours_cpu": None if ours is None else round(measured.slower_than(ours, busy=True), 3),
        # Of the rows that it computed, useful or not: how well it uses the device.
        "gemm_share": round(gemms.flops(measured.computed) / (by_limit * limit) / gemms.peak, 3),
        # Of the rows that had to be computed: how far it is from the best that there could be.
        "time_by_gemm_limit": round(by_limit, 3),
        "largest_difference": measured.difference,
        "agrees": measured.difference <= tolerance,
    }


def text(entries: Sequence[dict[str, Any]]) -> str:
    """The tables in markdown."""
    return "\n\n".join(_table(one) for one in entries)


def _table(one: dict[str, Any]) -> str:
    shape = one["shape"]
    beam = f", {shape['levels']} levels" if shape["levels"] > 1 else ""
    lines = [
        f"**{one['name']}**: P {shape['prompt']}, S {shape['solution']}, N {shape['n']}{beam}; "
        f"{one['problems']} problem(s), {one['sequences']} sequences, {one['tokens']} tokens, "
        f"{one['unique_tokens']} unique: {one['tokens_by_unique']:.2f} to one, ceiling by P, S and N "
        f"{one['ceiling']:.2f}; GEMM limit of the unique tokens {min(one['gemm_limit_seconds']):.2f} s "
        f"({min(one['gemm_limit_cpu_seconds']):.2f} cpu s)",
        "",
        f"| {' | '.join(_HEAD)} |",
        "|---" * len(_HEAD) + "|",
    ]
    return "\n".join([*lines, *(_row(method) for method in one["methods"])])


def _row(method: dict[str, Any]) -> str:
    cells = [
        method["name"],
        str(method["tokens_computed"]),
        f"{min(method['seconds']):.2f}",
        f"{median(method['seconds']):.2f}",
        f"{median(method['cpu_seconds']):.2f}",
        _ratio(method["by_ours"]),
        _ratio(method["by_ours_cpu"]),
        f"{100 * method['gemm_share']:.0f} %",
        f"{method['time_by_gemm_limit']:.2f}",
        f"{method['largest_difference']:.1e}{'' if method['agrees'] else ' WRONG'}",
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def write(name: str, report: dict[str, Any], folder: Path, today: date) -> Path:
    """The report as NAME-DATE-PROCESSOR.json; a number is added rather than an earlier one overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{today.isoformat()}-{slug(report['machine'])}"
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path

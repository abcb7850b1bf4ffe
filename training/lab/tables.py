"""The rows of the report's table and how they are printed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.core.aggregation import Aggregation
from services.core.voting import Strategy
from training.lab.estimates import bootstrap, pass_at, subsets, vote_accuracy
from training.lab.judgements import Judged, OwnLikelihood
from training.lab.quality import GATE

SMALL = 16
Rows = dict[str, dict[str, Any]]


def accuracy_rows(judged: Sequence[Judged], control: Sequence[Judged] | None, n: int, draws: int) -> Rows:
    """``{row: {"16": ..., "64": ...}}``, each with its interval, and where it applies the paired gain on majority."""
    rows: Rows = {"pass@1": {}}
    for k in sorted({min(SMALL, n), n}):
        plain = _column(judged, k, draws)
        others = _column(control, k, draws) if control is not None else {}
        named = {**plain, **{f"fine-tuned generator, {name}": values for name, values in others.items()}}
        for name, values in named.items():
            rows.setdefault(name, {})[str(k)] = _cell(values, plain["majority"])
    return rows


def _cell(values: list[float], majority: list[float]) -> dict[str, str]:
    gain = [value - base for value, base in zip(values, majority, strict=True)]
    return {"accuracy": bootstrap(values).percent, "minus_majority": bootstrap(gain).percent}


def _column(judged: Sequence[Judged], k: int, draws: int) -> dict[str, list[float]]:
    """One value per problem for every rule."""
    column: dict[str, list[float]] = {
        "pass@1": [sum(j.right) / len(j.right) for j in judged],
        "majority": _votes(judged, Strategy.MAJORITY, Aggregation.MEAN, k, draws),
    }
    for strategy in (Strategy.WEIGHTED, Strategy.BEST_OF_N):
        for how in (*Aggregation, *OwnLikelihood):
            column[f"{strategy.value} ({how.value})"] = _votes(judged, strategy, how, k, draws)
    column["oracle pass@N"] = [pass_at(len(j.right), sum(j.right), k) for j in judged]
    column["oracle pass@N, every step right"] = [pass_at(len(j.right), sum(j.all_right), k) for j in judged]
    return column


def _votes(
    judged: Sequence[Judged], strategy: Strategy, how: Aggregation | OwnLikelihood, k: int, draws: int
) -> list[float]:
    return [
        vote_accuracy(
            j.candidates(how), j.problem.answer, strategy, subsets(len(j.samples), k, draws, j.problem.identifier)
        )
        for j in judged
    ]


def markdown(report: dict[str, Any]) -> str:
    """The whole report as text."""
    lines = [
        f"{report['problems_per_level']} held-out problems a level, {report['n']} samples each, "
        f"T = {report['temperature']}, seed {report['seed']}; accuracy in %, 95 % bootstrap intervals over problems.",
        "",
    ]
    groups, shipped = report["groups"], report["shipped"]
    for name in ("easy", "hard"):
        if name in groups:
            lines += [*_accuracy_table(name, groups[name]["rows"], shipped), ""]
            lines += [*_quality_lines(name, groups[name]["quality"], shipped), ""]
    return "\n".join([*lines, *_levels_table(groups, shipped)])


def _accuracy_table(name: str, rows: Rows, shipped: str) -> list[str]:
    columns = list(rows["pass@1"])
    head = "".join(f" N = {k} | N = {k} minus majority |" for k in columns)
    lines = [f"| {name} |{head}", "|---|" + "---|---|" * len(columns)]
    for row, cells in rows.items():
        shown = "".join(f" {cells[k]['accuracy']} | {cells[k]['minus_majority']} |" for k in columns)
        lines.append(f"| {_marked(row, shipped)} |{shown}")
    return lines


def _marked(row: str, shipped: str) -> str:
    return f"**{row}** (shipped default)" if row == f"weighted ({shipped})" else row


def _quality_lines(name: str, found: dict[str, Any], shipped: str) -> list[str]:
    auc = found["within_problem_auc"][shipped]
    gate = "" if name != "easy" or auc is None else f" (gate {GATE}: {'passed' if auc >= GATE else 'FAILED'})"
    return [
        f"* {name}: answers right {found['answer_accuracy']}, every step right {found['all_steps_right']}",
        f"* {name}: AUC within a problem{gate}: {_numbers(found['within_problem_auc'])}; "
        f"pooled ({shipped}) {_number(found['pooled_auc'])}",
        f"* {name}: AUC of steps by kind of error: {_numbers(found['step_auc'])}",
        f"* {name}: share of steps by kind of error: {_numbers(found['fault_rates'])}",
    ]


def _levels_table(groups: dict[str, Any], shipped: str) -> list[str]:
    rows = ["pass@1", "majority", f"weighted ({shipped})", f"best_of_n ({shipped})", "oracle pass@N"]
    lines = ["| level, largest N |" + "".join(f" {row} |" for row in rows), "|---|" + "---|" * len(rows)]
    for name, group in groups.items():
        if name.startswith("level"):
            cells = [list(group["rows"][row].values())[-1]["accuracy"] for row in rows]
            lines.append(f"| {name} |" + "".join(f" {cell} |" for cell in cells))
    return lines


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _numbers(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in values.items())

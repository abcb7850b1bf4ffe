"""How good the verifier is on its own: AUC within problems, AUC of steps by kind of error, and the gate. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from services.core.aggregation import Aggregation, aggregate
from training.lab.checker import Fault
from training.lab.estimates import auc, bootstrap
from training.lab.judgements import Judged

GATE = 0.85  # within-problem AUC on held-out easy problems, before any hard evaluation


def quality(judged: Sequence[Judged], shipped: Aggregation) -> dict[str, Any]:
    """The numbers of one group of problems; ``shipped`` is the verifier's default aggregation."""
    answers = [sum(j.right) / len(j.right) for j in judged]
    steps = [sum(j.all_right) / len(j.all_right) for j in judged]
    return {
        "problems": len(judged),
        "answer_accuracy": bootstrap(answers).percent,
        "all_steps_right": bootstrap(steps).percent,
        "right_answers_by_wrong_steps": sum(answers) / len(answers) - sum(steps) / len(steps),
        "within_problem_auc": {how.value: within_problem_auc(judged, how) for how in Aggregation},
        "pooled_auc": pooled_auc(judged, shipped),
        "step_auc": step_auc(judged),
        "fault_rates": fault_rates(judged),
    }


def within_problem_auc(judged: Sequence[Judged], how: Aggregation) -> float | None:
    """The mean over problems of the AUC of right against wrong samples of the same problem."""
    values = [value for value in (auc(*_by_rightness([j], how)) for j in judged) if value is not None]
    return sum(values) / len(values) if values else None


def pooled_auc(judged: Sequence[Judged], how: Aggregation) -> float | None:
    """The AUC over all samples together; it flatters (see lab.md), so it only stands beside the other."""
    return auc(*_by_rightness(judged, how))


def step_auc(judged: Sequence[Judged]) -> dict[str, float | None]:
    """Right steps against the steps of each kind of error."""
    scores = _step_scores(judged)
    right = scores.pop(Fault.NONE, [])
    every = [score for group in scores.values() for score in group]
    kinds: dict[str, float | None] = {fault.value: auc(right, scores[fault]) for fault in sorted(scores)}
    return {"all": auc(right, every), **kinds}


def fault_rates(judged: Sequence[Judged]) -> dict[str, float]:
    """The share of steps with each kind of error."""
    scores = _step_scores(judged)
    total = sum(len(group) for group in scores.values())
    return {fault.value: len(group) / total for fault, group in sorted(scores.items())}


def _step_scores(judged: Sequence[Judged]) -> dict[Fault, list[float]]:
    scores: dict[Fault, list[float]] = defaultdict(list)
    for j in judged:
        for verdict, scored in zip(j.verdicts, j.scores, strict=True):
            if len(verdict.faults) == len(scored.steps):
                for fault, score in zip(verdict.faults, scored.steps, strict=True):
                    scores[fault].append(score)
    return scores


def _by_rightness(judged: Sequence[Judged], how: Aggregation) -> tuple[list[float], list[float]]:
    right: list[float] = []
    wrong: list[float] = []
    for j in judged:
        for is_right, scores in zip(j.right, j.scores, strict=True):
            score = aggregate(scores.steps, scores.outcome, how)
            if score is not None:
                (right if is_right else wrong).append(score)
    return right, wrong

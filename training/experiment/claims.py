"""The paper's claims as paired differences on hard problems, and what the lab says of each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from services.orchestrator.evaluation.findings import Estimate
from training.experiment.results import BASE, MAJORITY, POLICY_NAMES, Floats, Results, by_seed, pooled, rule_name

Verdict = Literal["reproduced", "not reproduced", "undecided"]
# Claim (d) says "about as good": a difference within so much counts as none.
MARGIN = 0.03


@dataclass(frozen=True)
class Finding:
    """One difference: what it is, its pooled interval, each seed's mean, and what it says of the claim."""

    what: str
    difference: Estimate
    seeds: tuple[float | None, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """A claim of the paper with the differences that bear on it; the first decides."""

    letter: str
    says: str
    findings: tuple[Finding, ...]


def above(found: Estimate) -> Verdict:
    """For "more than": the interval lies above zero, below it, or around it."""
    low, high = found.low or 0.0, found.high or 0.0
    return "reproduced" if low > 0 else "not reproduced" if high < 0 else "undecided"


def no_worse(found: Estimate) -> Verdict:
    """For "about as good": the interval lies above, below, or around a loss of `MARGIN`."""
    low, high = found.low or 0.0, found.high or 0.0
    return "reproduced" if low > -MARGIN else "not reproduced" if high < -MARGIN else "undecided"


def _finding(what: str, values: Floats, judge: Callable[[Estimate], Verdict] = above) -> Finding:
    found = pooled(values)
    if found is None:
        raise ValueError(f"{what}: no problem has a value")
    return Finding(what, found, by_seed(values), judge(found))


def claims_of(results: Results) -> list[Claim]:
    """All of them, from hard problems."""
    return [_reranking(results), _kinds(results), _rules(results), _supervision(results), _policies(results)]


def _minus(results: Results, one: str, other: str) -> Floats:
    return results.vote(one, "hard") - results.vote(other, "hard")


def _reranking(results: Results) -> Claim:
    judges = ("PRM", "OPRM", "ORM")
    return Claim(
        "a",
        "Reranking with a PRM trained on easy problems beats majority voting on hard ones.",
        tuple(
            _finding(f"{name} - {MAJORITY}", _minus(results, name, MAJORITY))
            for name in (rule_name("weighted", judge) for judge in judges)
        ),
    )


def _kinds(results: Results) -> Claim:
    pairs = [("weighted", judge) for judge in ("PRM", "OPRM")] + [("best_of_n", judge) for judge in ("PRM", "OPRM")]
    return Claim(
        "b",
        "A PRM trained on easy problems is better on hard ones than an ORM, by weighted voting.",
        tuple(
            _finding(
                f"{rule_name(rule, judge)} - {rule_name(rule, 'ORM')}",
                _minus(results, rule_name(rule, judge), rule_name(rule, "ORM")),
            )
            for rule, judge in pairs
        ),
    )


def _rules(results: Results) -> Claim:
    few, many = results.sizes[len(results.sizes) // 2], results.sizes[-1]
    against = [
        _finding(
            f"{rule_name('weighted', judge)} - {rule_name('best_of_n', judge)}",
            _minus(results, rule_name("weighted", judge), rule_name("best_of_n", judge)),
        )
        for judge in ("PRM", "OPRM", "ORM")
    ]
    growth = [
        _finding(
            f"{name}, {many} samples - {few} samples", results.vote(name, "hard") - results.vote(name, "hard", few)
        )
        for name in (rule_name("weighted", "PRM"), rule_name("best_of_n", "PRM"))
    ]
    return Claim("c", "Weighted voting beats best_of_n; whether each grows with N is told apart.", (*against, *growth))


def _supervision(results: Results) -> Claim:
    full = "PRM, levels 1-5"
    return Claim(
        "d",
        f"A PRM trained on easy problems is about as good on hard ones as one trained on all (within {MARGIN:.0%}).",
        tuple(
            _finding(
                f"{rule_name(rule, 'PRM')} - {rule_name(rule, full)}",
                _minus(results, rule_name(rule, "PRM"), rule_name(rule, full)),
                no_worse,
            )
            for rule in ("weighted", "best_of_n")
        ),
    )


def _policies(results: Results) -> Claim:
    def minus(one: str, other: str) -> Finding:
        return _finding(f"{one} - {other}", results.single[one] - results.single[other])

    rest, dpo, ppo, control = (POLICY_NAMES[name] for name in ("rest", "dpo", "ppo", "control"))
    pairs: Sequence[tuple[str, str]] = (
        *((ppo, BASE), (dpo, BASE), (rest, BASE)),
        *((ppo, control), (ppo, rest), (ppo, dpo)),
    )
    return Claim(
        "e",
        "PPO with the easy-trained verifier beats supervised fine-tuning on easy problems (pass@1).",
        tuple(minus(one, other) for one, other in pairs),
    )

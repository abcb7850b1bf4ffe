"""The page of the experiment: Markdown and plots from what is under its folder. Every number is computed."""

from __future__ import annotations

import datetime
import json
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from services.orchestrator.evaluation.findings import Estimate
from services.orchestrator.evaluation.tables import percent
from services.runtime.machine import cores, processor
from training.experiment.claims import Claim, claims_of
from training.experiment.figures import accuracy_plot, policies_plot
from training.experiment.plan import Experiment
from training.experiment.results import (
    BASE,
    GROUPS,
    JUDGES,
    MAJORITY,
    ORACLE,
    POLICY_NAMES,
    Floats,
    Results,
    by_seed,
    pooled,
    read_results,
    rule_name,
)
from training.experiment.stages import RECORD

_ACCURACY, _POLICIES = "experiment-accuracy.png", "experiment-policies.png"


def write_page(experiment: Experiment, out: Path, page: Path, config: Path) -> None:
    """`page` and its plots beside it. Raises `NotFound` while an evaluation is missing."""
    results = read_results(out, experiment.seeds)
    blocks = [
        *_head(experiment, results, config),
        *_claims(claims_of(results)),
        *_accuracies(results),
        *_verifiers(results),
        *_gates(out, experiment),
        *_policies(results, experiment.evaluation.policy_n),
        *_costs(out, experiment.seeds),
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(blocks) + "\n", encoding="utf-8")
    (page.parent / _ACCURACY).write_bytes(accuracy_plot(results))
    (page.parent / _POLICIES).write_bytes(policies_plot(results))


def _head(experiment: Experiment, results: Results, config: Path) -> Iterator[str]:
    plan = experiment.evaluation
    seeds = ", ".join(map(str, results.seeds))
    yield "# The experiment: easy-to-hard in the lab"
    yield ""
    yield from _text(
        f"Written by `python -m training.experiment` from `{config.name}`: every number and verdict below is computed. "
        f"{datetime.date.today().isoformat()}, "
        f"{processor()}, {cores()} cores; seeds {seeds}, each from random weights."
    )
    yield from _text(
        f"{len(results.places('easy'))} easy and {len(results.places('hard'))} hard held-out problems, the same for "
        f"all seeds, drawn from a seed that nothing else uses; {plan.n} samples each at T = 1 ({plan.policy_n} for "
        "policies), sampled by vLLM and scored by the verifier service's code through `e2h eval`. Brackets are 95 % "
        f"intervals that resample seeds and problems both; with {len(results.seeds)} seeds they understate the spread "
        "between seeds."
    )


def _claims(claims: Sequence[Claim]) -> Iterator[str]:
    yield "## The paper's claims"
    yield ""
    yield from _text(
        "Sun et al. (2024), on hard problems; differences in points, paired by problem. The first row of a claim "
        "decides it."
    )
    yield "| | difference | points | each seed | this row says |"
    yield "|---|---|---|---|---|"
    for claim in claims:
        yield f"| **({claim.letter})** | **{claim.says}** | | | **{claim.findings[0].verdict}** |"
        for one in claim.findings:
            yield f"| | {one.what} | {percent(one.difference, sign=True)} | {_means(one.seeds, '+')} | {one.verdict} |"
    yield ""


def _accuracies(results: Results) -> Iterator[str]:
    rules = [rule_name(rule, judge) for rule in ("weighted", "best_of_n") for judge in JUDGES]
    yield "## Reranking"
    yield ""
    yield f"![accuracy against samples]({_ACCURACY})"
    yield ""
    yield f"Accuracy in % with {results.sizes[-1]} samples:"
    yield ""
    yield "| | easy | each seed | hard | each seed |"
    yield "|---|---|---|---|---|"
    yield _row("pass@1", [results.vote(ORACLE, group, 1) for group in GROUPS])
    for name in (MAJORITY, *rules, ORACLE):
        yield _row(name, [results.vote(name, group) for group in GROUPS])
    yield ""


def _verifiers(results: Results) -> Iterator[str]:
    yield "## The verifiers on their own"
    yield ""
    yield from _text(
        "AUROC of right against wrong samples of the same problem, mean over problems that have both, times 100."
    )
    yield "| | easy | each seed | hard | each seed |"
    yield "|---|---|---|---|---|"
    for judge in JUDGES:
        yield _row(judge, [results.auroc[judge][:, results.places(group)] for group in GROUPS])
    yield ""


def _gates(out: Path, experiment: Experiment) -> Iterator[str]:
    plan = experiment.verifier
    yield from _text(
        f"Before any of this each verifier was held to a gate of {100 * plan.gate:.0f} on other easy problems, and "
        f"trained anew from other weights where it failed, {plan.tries} times in all; the page shows the last try."
    )
    yield "| each try of each seed | " + " | ".join(f"seed {seed}" for seed in experiment.seeds) + " |"
    yield "|---|" + "---|" * len(experiment.seeds)
    tries = [{one["stage"]: one["gate"] for one in _record(out, seed) if "gate" in one} for seed in experiment.seeds]
    for judge, (verifier, _) in JUDGES.items():
        cells = (", ".join(f"{100 * gate:.1f}" for gate in told[verifier]) for told in tries)
        yield f"| {judge} | {' | '.join(cells)} |"
    yield ""


def _record(out: Path, seed: int) -> list[dict[str, Any]]:
    """What the stages of a seed told."""
    lines = (out / f"seed-{seed}" / RECORD).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _policies(results: Results, n: int) -> Iterator[str]:
    yield "## Policies"
    yield ""
    yield from _text(
        "ReST-EM, DPO and PPO start from the base generator and use the easy-trained OPRM on problems of all levels; "
        "gold answers count on easy problems alone. *SFT on all easy solutions* is the control: the base generator "
        "fine-tuned on right solutions of the problems that the verifiers learned from."
    )
    yield f"![policies on hard problems]({_POLICIES})"
    yield ""
    yield f"| hard, accuracy in % | pass@1 | each seed | majority of {n} | each seed |"
    yield "|---|---|---|---|---|"
    for name in (BASE, *POLICY_NAMES.values()):
        yield _row(name, [results.single[name], results.majority[name]])
    yield ""


def _text(paragraph: str) -> Iterator[str]:
    yield from textwrap.wrap(paragraph, 118, break_on_hyphens=False)
    yield ""


def _row(name: str, values: Sequence[Floats]) -> str:
    cells = [f"{_estimate(pooled(one))} | {_means(by_seed(one))}" for one in values]
    return f"| {name} | {' | '.join(cells)} |"


def _estimate(found: Estimate | None) -> str:
    return "-" if found is None else percent(found)


def _means(means: Sequence[float | None], sign: str = "") -> str:
    return ", ".join("-" if mean is None else f"{100 * mean:{sign}.1f}" for mean in means)


def _costs(out: Path, seeds: Sequence[int]) -> Iterator[str]:
    stages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for seed in seeds:
        for one in _record(out, seed):
            stages[one["stage"]].append(one)
    yield "## What it took"
    yield ""
    yield from _text(
        "Processor minutes of one core and peak memory of the training process so far, the most of any seed. The first "
        "verifier of its levels counts the sampling that the others share."
    )
    yield "| stage | processor min | GiB |"
    yield "|---|---|---|"
    for name, told in stages.items():
        spent, peak = max(one["processor_s"] for one in told), max(one["peak_gib"] for one in told)
        yield f"| {name} | {spent / 60:.1f} | {peak:.1f} |"
    total = sum(one["processor_s"] for told in stages.values() for one in told) / 3600
    yield f"| all seeds together, hours | {total:.1f} | |"

"""`report.md`: the tables of a report. Pure."""

from collections.abc import Iterator, Sequence

from services.orchestrator.evaluation.findings import Curve, Estimate, Group, Report, ScoreQuality

_LARGE = (16, 64)  # the sizes of the differences table, beside N: what papers print


def markdown(report: Report, plots: Sequence[str]) -> str:
    """The whole report as text; `plots` are the names of image files beside it."""
    lines = [f"# {report.dataset}", "", *_head(report), ""]
    for name in plots:
        title = name.removesuffix(".png").replace("-", " ")
        lines += [f"![{title}]({name})", ""]
    for group in main_groups(report):
        lines += [f"## {group.name}: {group.problems} problems", ""]
        lines += [*_accuracies(group), "", *_differences(group, report), ""]
        if group.quality:
            lines += [*_quality(group.quality), ""]
    levels = [group for group in report.groups if group.name.startswith("level")]
    if levels:
        lines += ["## Levels", "", *_levels(levels, report), ""]
    return "\n".join([*lines, *_notes(report)]) + "\n"


def main_groups(report: Report) -> list[Group]:
    """Easy and hard, then all; all alone where there are no levels."""
    order = ("easy", "hard", "all")
    return [group for name in order if (group := report.group(name)) is not None]


def _head(report: Report) -> list[str]:
    verifier, sampling = report.verifier, report.sampling
    scored = "no verifier" if verifier is None else f"verifier `{verifier.id}` ({verifier.kind})"
    lines = [
        f"Generator `{report.generator}`, {scored}; N = {report.n} samples a problem at temperature "
        f"{sampling.temperature:g}, top-p {sampling.top_p:g}, at most {sampling.max_tokens} tokens, "
        f"seed {report.seed}.",
    ]
    if verifier is not None:
        lines += [f"The verifier's default aggregation is `{verifier.default_aggregation}`."]
    if report.complete < report.problems:
        lines += ["", f"**Unfinished: {report.complete} of {report.problems} problems have all their samples.**"]
    if report.graded < report.complete:
        lines += ["", f"{report.complete - report.graded} problems have no gold answer and are left out."]
    without = f"{report.unanswered} have no answer" + (f" and {report.unscored} no score" if verifier else "")
    lines += [
        "",
        f"Of {report.samples} samples {without}. Accuracies in %, [95 % bootstrap intervals over problems].",
    ]
    return lines


def _accuracies(group: Group) -> Iterator[str]:
    sizes = [point.k for point in group.curves[0].points]
    yield "| rule | score |" + "".join(f" k = {k} |" for k in sizes)
    yield "|---|---|" + "---|" * len(sizes)
    for curve in group.curves:
        cells = "".join(f" {percent(point.accuracy)} |" for point in curve.points)
        yield f"| {curve.label if curve.score is None else curve.strategy} | {curve.score or ''} |{cells}"
    yield ""
    yield "Expected tokens of a problem, sampled / verified (each distinct text once):"
    yield ""
    yield "|" + "".join(f" k = {k} |" for k in sizes)
    yield "|" + "---|" * len(sizes)
    dearest = max(group.curves, key=lambda curve: curve.points[-1].verifier_tokens)
    yield "|" + "".join(f" {p.generator_tokens:.0f} / {p.verifier_tokens:.0f} |" for p in dearest.points)


def _differences(group: Group, report: Report) -> Iterator[str]:
    """Every rule against majority; the rest for the verifier's default aggregation, all of it is in report.json."""
    found = {(d.rule, d.minus, d.k): d.difference for d in group.differences}
    sizes = sorted({d.k for d in group.differences if d.k in (*_LARGE, report.n)})
    default = None if report.verifier is None else f"weighted ({report.verifier.default_aggregation})"
    pairs = [(rule, minus) for rule, minus, k in found if k == report.n and (minus == "majority" or rule == default)]
    if not sizes or not pairs:
        return
    yield "Paired differences, in points:"
    yield ""
    yield "| rule | minus |" + "".join(f" k = {k} |" for k in sizes)
    yield "|---|---|" + "---|" * len(sizes)
    for rule, minus in pairs:
        cells = "".join(f" {percent(found[rule, minus, k], sign=True)} |" for k in sizes)
        yield f"| {rule} | {minus} |{cells}"


def _quality(qualities: Sequence[ScoreQuality]) -> Iterator[str]:
    yield "The verifier on its own, right answers against wrong ones:"
    yield ""
    yield "| score | AUROC within a problem | problems with both | AUROC pooled | ECE | samples |"
    yield "|---|---|---|---|---|---|"
    for quality in qualities:
        within = quality.auroc_within
        cells = [
            quality.score,
            "" if within is None else _interval(within, 1.0, 3),
            str(quality.problems_with_both),
            _number(quality.auroc_pooled),
            _number(quality.expected_calibration_error),
            str(quality.samples),
        ]
        yield f"| {' | '.join(cells)} |"


def _levels(levels: Sequence[Group], report: Report) -> Iterator[str]:
    shown = shown_curves(levels[0], report)
    yield f"| k = {report.n} | problems |" + "".join(f" {curve.label} |" for curve in shown)
    yield "|---|---|" + "---|" * len(shown)
    for group in levels:
        curves = shown_curves(group, report)
        cells = "".join(f" {percent(curve.points[-1].accuracy)} |" for curve in curves)
        yield f"| {group.name} | {group.problems} |{cells}"


def shown_curves(group: Group, report: Report) -> list[Curve]:
    """Those that a plot or a narrow table has room for: the oracle, the rules under the verifier's default aggregation,
    and the vote weighted by the generator's own likelihood."""
    default = None if report.verifier is None else report.verifier.default_aggregation.value
    wanted = [("pass", None), ("weighted", default), ("best_of_n", default), ("majority", None)]
    wanted.append(("weighted", "likelihood_per_token"))
    return [curve for name, score in wanted if (curve := group.curve(name, score)) is not None]


def _notes(report: Report) -> Iterator[str]:
    yield "## How it was counted"
    yield ""
    yield "* pass@k: 1 - C(N-c, k) / C(N, k). best_of_n@k: closed form over all k-subsets."
    yield (
        "* majority@k, weighted@k: the mean over random k-subsets of the N samples: over all where they are few "
        f"(`exact` in report.json), else over {report.draws} seeded draws, the same for every rule."
    )
    yield "* majority sees no scores: its ties go to the lower index. Other ties go to the higher best score."
    yield "* A sample without an answer has no vote; where nobody votes the answer counts as wrong."
    yield (
        f"* Intervals: percentile bootstrap over problems, {report.resamples} resamples; differences are paired by "
        "problem. They do not tell of other samples of the same problems, nor of another training run."
    )
    yield (
        "* `likelihood` weighs a sample by the generator's probability of its text, `likelihood_per_token` by that of "
        "a token, geometric mean: controls without a verifier."
    )


def percent(value: Estimate, *, sign: bool = False) -> str:
    """`mean [low, high]` in percent."""
    return _interval(value, 100.0, 1, sign=sign)


def _interval(value: Estimate, scale: float, digits: int, *, sign: bool = False) -> str:
    form = f"{{:{'+' if sign else ''}z.{digits}f}}"
    mean = form.format(scale * value.mean)
    if value.low is None or value.high is None:
        return mean
    return f"{mean} [{form.format(scale * value.low)}, {form.format(scale * value.high)}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

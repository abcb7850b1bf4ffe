"""The picture of a report: goodput and percentiles by rate, or each phase's percentiles. matplotlib, no display."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from services.cli.bench.report import Report
from services.cli.bench.summary import Phase
from services.core.errors import InvalidRequest

_PERCENTILES = ("p50", "p90", "p99", "max")


def draw(report: Report, path: Path) -> None:
    """Write a PNG (or what the name's ending says). Raises `InvalidRequest` when that cannot be done."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    swept = _swept(report)
    if swept:
        _goodput(left, report, swept)
        _by_rate(right, report, swept)
    else:
        _spectrum(left, report)
        _split(right, report)
    figure.suptitle(f"e2h bench {report.kind}, {report.date[:10]}, {report.machine['cpu']}", fontsize=10)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {path}: {type(error).__name__}") from None


def _swept(report: Report) -> list[Phase]:
    opened = [phase for phase in report.phases if phase.loop_is_open] if report.knee is not None else []
    return sorted(opened, key=lambda phase: phase.offered)


def _goodput(axes: Axes, report: Report, phases: list[Phase]) -> None:
    offered = [phase.offered for phase in phases]
    good = [phase.goodput for phase in phases]
    low = [g.value - (g.value if g.low is None else g.low) for g in good]
    high = [(g.value if g.high is None else g.high) - g.value for g in good]
    axes.plot(offered, offered, color="grey", linestyle=":", label="offered")
    axes.errorbar(offered, [g.value for g in good], yerr=[low, high], marker="o", capsize=3, label="goodput")
    axes.plot(offered, [phase.throughput.value for phase in phases], linestyle="--", label="answered with 200")
    if report.knee is not None and report.knee.rate is not None:
        axes.axvline(report.knee.rate, color="tab:red", label=f"knee: {report.knee.rate:.1f}/s")
    axes.set(xlabel="offered, requests/s", ylabel="requests/s", title=f"Answered within {report.slo_ms:g} ms")
    axes.set_ylim(bottom=0)
    axes.legend()


def _by_rate(axes: Axes, report: Report, phases: list[Phase]) -> None:
    for name in _PERCENTILES:
        points = [(phase.offered, phase.latency[name].value) for phase in phases if name in phase.latency]
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.axhline(report.slo_ms, color="grey", linestyle=":", label="objective")
    axes.set(xlabel="offered, requests/s", ylabel="latency, ms", yscale="log", title="Latency of the answered")
    axes.legend()


def _spectrum(axes: Axes, report: Report) -> None:
    """Each phase's percentiles, ever closer to one: the tail is where phases differ."""
    for phase in report.phases:
        points = [(1 / (1 - share), latency) for share, latency in phase.latency_curve if share < 1]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=phase.name)
    axes.axhline(report.slo_ms, color="grey", linestyle=":", label="objective")
    axes.set(xlabel="1 / (1 - share)", ylabel="latency, ms", xscale="log", yscale="log", title="Share answered within")
    axes.legend()


def _split(axes: Axes, report: Report) -> None:
    names = [phase.name for phase in report.phases]
    below = [0.0] * len(names)
    for part in dict.fromkeys(part for phase in report.phases for part in phase.parts):
        heights = [phase.parts.get(part, 0.0) for phase in report.phases]
        axes.bar(names, heights, bottom=below, label=part)
        below = [a + b for a, b in zip(below, heights, strict=True)]
    axes.set(ylabel="ms on average", title="Where the time went")
    axes.legend()

"""The plots of a report, as PNG bytes. Pure: matplotlib without a display. Equal reports give equal bytes.

Colours are Okabe and Ito's, which differ for every kind of colour vision; lines also differ in dashes and markers, for
print.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from services.orchestrator.evaluation.arrays import OWN_LIKELIHOODS
from services.orchestrator.evaluation.findings import Curve, Estimate, Group, Point, Report
from services.orchestrator.evaluation.tables import main_groups, shown_curves

_PANEL_INCHES, _HEIGHT_INCHES, _DPI = 4.6, 4.2, 120


@dataclass(frozen=True, slots=True)
class _Style:
    colour: str
    line: str | tuple[int, tuple[int, ...]]
    marker: str


_STYLES = {
    "pass": _Style("#666666", (0, (1, 1)), ""),
    "weighted": _Style("#0072B2", "-", "o"),
    "best_of_n": _Style("#D55E00", "--", "s"),
    "majority": _Style("#000000", "-.", "^"),
    "likelihood": _Style("#009E73", (0, (5, 1, 1, 1, 1, 1)), "D"),
}


def draw_plots(report: Report) -> dict[str, bytes]:
    """File name to PNG. Easy and hard have a panel each; a data set without levels has one for all."""
    groups = [group for group in main_groups(report) if group.name != "all"] or main_groups(report)
    plots = {
        "accuracy.png": _panels(report, groups, _accuracy),
        "compute.png": _panels(report, groups, _compute),
    }
    if report.verifier is not None:
        plots["selection-gap.png"] = _panels(report, groups, _gap)
        if any(group.quality for group in groups):
            plots["reliability.png"] = _panels(report, groups, _reliability)
    return plots


_Panel = Callable[[Axes, Group, Report], None]


def _panels(report: Report, groups: Sequence[Group], draw: _Panel) -> bytes:
    """Panels side by side on one scale, and one legend under them: it never lies over data."""
    figure = Figure(figsize=(_PANEL_INCHES * max(len(groups), 1.2), _HEIGHT_INCHES), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, group in zip(axes, groups, strict=True):
        draw(panel, group, report)
        panel.set_title(f"{group.name} ({group.problems} problems)", fontsize=10)
        panel.grid(visible=True, color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
    for panel in axes[1:]:
        panel.set_ylabel("")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    written = BytesIO()
    # matplotlib's name and version would change the bytes with every update of it.
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _accuracy(panel: Axes, group: Group, report: Report) -> None:
    for curve in shown_curves(group, report):
        _line(panel, curve, [float(point.k) for point in curve.points], [p.accuracy for p in curve.points])
    _sizes_axis(panel, [point.k for point in group.curves[0].points])
    panel.set_ylabel("accuracy, % (95 % interval)")


def _gap(panel: Axes, group: Group, report: Report) -> None:
    for curve in shown_curves(group, report):
        if curve.strategy != "pass":
            _line(panel, curve, [float(point.k) for point in curve.points], [p.oracle_gap for p in curve.points])
    _sizes_axis(panel, [point.k for point in group.curves[0].points])
    panel.set_ylabel("pass@k minus accuracy, points")


def _compute(panel: Axes, group: Group, report: Report) -> None:
    for curve in shown_curves(group, report):
        if curve.strategy != "pass":  # it needs the gold answers: no compute buys it
            _line(panel, curve, [_tokens(point) for point in curve.points], [p.accuracy for p in curve.points])
    panel.set_xscale("log")
    panel.set_xlabel("tokens a problem, sampled + verified")
    panel.set_ylabel("accuracy, % (95 % interval)")


def _tokens(point: Point) -> float:
    return point.generator_tokens + point.verifier_tokens


def _reliability(panel: Axes, group: Group, report: Report) -> None:
    panel.plot([0, 1], [0, 1], color="#666666", linestyle=":", linewidth=1, label="perfectly calibrated")
    default = None if report.verifier is None else report.verifier.default_aggregation.value
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
    for quality, colour, marker in zip(group.quality, colours, "osD^v", strict=False):
        wide = quality.score == default
        across, up = [found.mean_score for found in quality.bins], [found.right for found in quality.bins]
        panel.plot(across, up, color=colour, linewidth=1.8 if wide else 0.7)
        # A bin of a few samples says little: its mark is small.
        sizes = [6 + 150 * found.samples / quality.samples for found in quality.bins]
        name = f"{quality.score} (default)" if wide else quality.score
        panel.scatter(across, up, s=sizes, color=colour, marker=marker, label=name)
    panel.set_xlim(-0.02, 1.02)
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel("mean score of the bin (mark: its share of samples)")
    panel.set_ylabel("share of right answers")


def _line(panel: Axes, curve: Curve, across: Sequence[float], values: Sequence[Estimate]) -> None:
    """A line with its band, in percent. Where there is no interval, no band."""
    style = _STYLES["likelihood" if curve.score in OWN_LIKELIHOODS else curve.strategy]
    means = [100 * value.mean for value in values]
    panel.plot(
        across,
        means,
        color=style.colour,
        linestyle=style.line,
        marker=style.marker,
        markersize=4,
        linewidth=1.6,
        label=curve.label,
    )
    bands = [
        (100 * value.low, 100 * value.high) for value in values if value.low is not None and value.high is not None
    ]
    if len(bands) == len(values):
        low, high = zip(*bands, strict=True)
        panel.fill_between(across, low, high, color=style.colour, alpha=0.13, linewidth=0)


def _sizes_axis(panel: Axes, sizes: Sequence[int]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(sizes)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("samples a problem, k")

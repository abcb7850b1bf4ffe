"""The experiment's plots as PNG bytes. Pure: matplotlib without a display.

Colours are Okabe and Ito's, which differ for every kind of colour vision; lines also differ in dashes and markers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.experiment.results import (
    BASE,
    GROUPS,
    JUDGES,
    MAJORITY,
    ORACLE,
    POLICY_NAMES,
    Floats,
    Results,
    pooled,
    rule_name,
)

_DPI = 110
_COLOURS = {"PRM": "#0072B2", "OPRM": "#009E73", "ORM": "#D55E00", "PRM, levels 1-5": "#CC79A7"}
_MARKS = {"PRM": "o", "OPRM": "D", "ORM": "s", "PRM, levels 1-5": "v"}


def accuracy_plot(results: Results) -> bytes:
    """Accuracy against N, easy and hard: every verifier under both rules, bands around PRM's and majority's."""
    figure, axes = _figure(len(GROUPS))
    for panel, group in zip(axes, GROUPS, strict=True):
        _line(panel, results, ORACLE, group, colour="#666666", style=":", mark="")
        _line(panel, results, MAJORITY, group, colour="#000000", style="-.", mark="^", band=True)
        for judge in JUDGES:
            for rule, style in (("weighted", "-"), ("best_of_n", "--")):
                name, band = rule_name(rule, judge), (rule, judge) == ("weighted", "PRM")
                _line(panel, results, name, group, colour=_COLOURS[judge], style=style, mark=_MARKS[judge], band=band)
        panel.set_xscale("log", base=2)
        panel.set_xticks(results.sizes, [str(size) for size in results.sizes])
        panel.set_title(f"{group} ({len(results.places(group))} problems)")
        panel.set_xlabel("samples")
    axes[0].set_ylabel("accuracy, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return _png(figure)


def policies_plot(results: Results) -> bytes:
    """pass@1 and majority of every policy on hard problems, with intervals; a dot a seed."""
    figure, axes = _figure(2)
    names = [BASE, *POLICY_NAMES.values()]
    rows: Mapping[str, Mapping[str, Floats]] = {"pass@1": results.single, "majority": results.majority}
    for panel, (title, values) in zip(axes, rows.items(), strict=True):
        for at, name in enumerate(names):
            chosen = values[name]
            mean, low, high = _ends(chosen)
            panel.errorbar(mean, at, xerr=[[mean - low], [high - mean]], fmt="o", color="#0072B2", capsize=3)
            panel.plot(100 * chosen.mean(axis=1), [at + 0.18] * len(chosen), ".", color="#666666", markersize=4)
        panel.set_title(f"hard, {title}")
        panel.set_xlabel("accuracy, %")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    return _png(figure)


def _figure(panels: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(4.8 * panels, 4.6), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, sharey=True, squeeze=False)[0]


def _line(
    panel: Axes, results: Results, name: str, group: str, *, colour: str, style: str, mark: str, band: bool = False
) -> None:
    means, lows, highs = zip(*(_ends(results.vote(name, group, size)) for size in results.sizes), strict=True)
    panel.plot(
        results.sizes, means, color=colour, linestyle=style, marker=mark, markersize=4, linewidth=1.3, label=name
    )
    if band:
        panel.fill_between(results.sizes, lows, highs, color=colour, alpha=0.12, linewidth=0)


def _ends(values: Floats) -> tuple[float, float, float]:
    """Mean and ends of the interval, in percent."""
    found = pooled(values)
    if found is None:
        raise ValueError("no problem has a value")
    low, high = (found.mean if end is None else end for end in (found.low, found.high))
    return 100 * found.mean, 100 * low, 100 * high


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

"""How a report looks on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.bench.compare import Ratio
from services.cli.bench.knee import Knee
from services.cli.bench.latency import Estimate
from services.cli.bench.report import Report
from services.cli.bench.summary import Histogram, Phase

_BAR = 10
_PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


def show_report(console: Console, report: Report) -> None:
    """Rates and latencies of every phase, where the time went, batches of the last phase, the knee, and warnings."""
    console.print(_rates(report))
    console.print(_latencies(report))
    console.print(_parts(report))
    if report.kind == "verifier" and report.phases:
        console.print(_batches(report.phases[-1]))
    for line, style in _verdicts(report):
        console.print(Text(line, style=style))


def _rates(report: Report) -> Table:
    table = _table(f"Requests a second; good is an answer within {report.slo_ms:g} ms; answers by status")
    for name in ("phase", "offered", "answered", "good", "answers"):
        table.add_column(name, justify="left" if name in ("phase", "answers") else "right")
    for phase in report.phases:
        rates = [_number(phase.offered), _number(phase.throughput.value), _figure(phase.goodput)]
        statuses = ", ".join(f"{status}: {count}" for status, count in phase.statuses.items())
        table.add_row(phase.name, *rates, statuses)
    return table


def _latencies(report: Report) -> Table:
    table = _table("Latency in ms, from when a request was due; 95 % intervals")
    for name in ("phase", *_PERCENTILES):
        table.add_column(name, justify="left" if name == "phase" else "right")
    for phase in report.phases:
        table.add_row(phase.name, *(_figure(phase.latency.get(name)) for name in _PERCENTILES))
    return table


def _parts(report: Report) -> Table:
    table = _table("Where the time of an answer went, in ms on average; its tokens; how late the sender was")
    names = list(dict.fromkeys(name for phase in report.phases for name in phase.parts))
    for name in ("phase", *names, "tokens/s", "computed", "late p99", "refused p99"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    for phase in report.phases:
        cells = [_number(phase.parts[name]) if name in phase.parts else "-" for name in names]
        refused = phase.refused.get("p99")
        more = [_number(phase.tokens_a_second), f"{phase.waste:.0%}", _number(phase.lag.p99)]
        table.add_row(phase.name, *cells, *more, "-" if refused is None else _number(refused.value))
    return table


def _batches(phase: Phase) -> Table:
    table = _table(f"Batches as requests met them, in the phase: {phase.name}")
    for name in ("tokens", "solutions", "a request's tokens, computed share"):
        table.add_column(name)
    shown = (phase.batch_tokens, phase.batch_solutions, phase.waste_shares)
    table.add_row(*(Text("\n".join(_bars(histogram))) for histogram in shown))
    return table


def _bars(histogram: Histogram) -> list[str]:
    filled = [place for place, count in enumerate(histogram.counts) if count]
    if not filled:
        return ["-"]
    most, rows = max(histogram.counts), range(filled[0], filled[-1] + 1)
    lines = []
    for place in rows:
        low, high, count = histogram.edges[place], histogram.edges[place + 1], histogram.counts[place]
        lines.append(f"{low:>6g} - {high:<6g} {'█' * round(_BAR * count / most):<{_BAR}} {count}")
    return lines


def _verdicts(report: Report) -> list[tuple[str, str]]:
    lines = []
    if report.peak is not None:
        lines.append((f"Closed loop: {report.peak:.1f} requests a second at most.", ""))
    if report.knee is not None:
        lines += _knee(report.knee)
    for phase in report.phases:
        if phase.lag.behind:
            late = f"{phase.name}: the sender was up to {phase.lag.max:.0f} ms late (p99 {phase.lag.p99:.0f} ms), which"
            lines.append((f"{late} is in the latencies; use more --senders, or another machine.", "yellow"))
        if phase.failed_items:
            lines.append((f"{phase.name}: {phase.failed_items} solutions had no score.", "yellow"))
    return lines


def _knee(knee: Knee) -> list[tuple[str, str]]:
    if knee.rate is None:
        lines = [("No rate of the sweep kept the objective.", "yellow")]
    else:
        lines = [(f"Knee: {knee.rate:.1f} requests a second; peak goodput {knee.peak:.1f}.", "bold")]
    if knee.kept is not None:
        errors = ", ".join(f"{status}: {count}" for status, count in knee.errors.items()) or "none"
        style = "yellow" if knee.errors or knee.kept < 0.9 else "green"
        lines.append(
            (f"Asked for more: at least {knee.kept:.0%} of the peak goodput; errors but 429: {errors}.", style)
        )
    return lines


def show_comparison(console: Console, ratios: Sequence[Ratio], differing: Sequence[str]) -> None:
    """Ratios new by old; those whose interval excludes 1 stand out."""
    if differing:
        console.print(Text(f"The two reports differ in: {', '.join(differing)}.", style="yellow"))
    if not ratios:
        console.print(Text("No phase of the old report has a counterpart here.", style="yellow"))
        return
    table = _table("New by old, 95 % intervals; bold where they exclude 1")
    for name in ("phase", "figure", "old", "new", "ratio"):
        table.add_column(name, justify="left" if name in ("phase", "figure") else "right")
    for one in ratios:
        cells = (one.phase, one.figure, _number(one.old), _number(one.new), _figure(one.ratio))
        table.add_row(*cells, style="bold" if one.differs else "")
    console.print(table)


def _figure(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return _number(estimate.value)
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _number(value: float) -> str:
    """Three figures, which is more than a run can tell apart."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)

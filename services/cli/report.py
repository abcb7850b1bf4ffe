"""`e2h report`: stored samples voted on again, without a model."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.faults import told_faults
from services.orchestrator.evaluation.findings import Report
from services.orchestrator.evaluation.report import build_report, write_report
from services.orchestrator.evaluation.store import ResultsStore
from services.orchestrator.evaluation.tables import main_groups, percent, shown_curves


def run_report(results: str, out: str | None = None, draws: int = 200, seed: int = 0, as_json: bool = False) -> int:
    """Build, write and tell. Returns the exit code."""
    with told_faults():
        report = build_report(ResultsStore(results), draws=draws, seed=seed)
        place = results if out is None else out
        names = write_report(report, place)
        if as_json:
            print(report.model_dump_json(indent=2))  # noqa: T201 - the output that was asked for
            return 0
        console = Console(highlight=False)
        _show(console, report)
        console.print(f"{', '.join(names)} in {place}", markup=False, style="dim", soft_wrap=True)
    return 0


def _show(console: Console, report: Report) -> None:
    """The rules that the plots show, at the largest k."""
    if report.complete < report.problems:
        console.print(f"unfinished: {report.complete} of {report.problems} problems have all their samples")
    table = Table(title=f"Accuracy in % with {report.n} samples", title_justify="left", title_style="bold")
    table.add_column("rule")
    groups = main_groups(report)
    for group in groups:
        table.add_column(f"{group.name} ({group.problems})", justify="right")
    for curves in zip(*(shown_curves(group, report) for group in groups), strict=True):
        table.add_row(Text(curves[0].label), *(percent(curve.points[-1].accuracy) for curve in curves))
    console.print(table)

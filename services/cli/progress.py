"""The progress bars of commands that take their time, on standard error."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


def progress(*more: ProgressColumn, transient: bool = False) -> Progress:
    """Counts with the time that has passed, and the columns `more`; a transient one leaves nothing behind."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *more,
        console=Console(stderr=True),
        transient=transient,
    )

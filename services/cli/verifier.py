"""`e2h verifier`: what a reward-model checkpoint is, and how it becomes one that the service loads."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.faults import told_faults
from services.core.contracts import VerifierKind
from services.core.errors import ModelLoadError
from services.runtime.settings import load_settings
from services.verifier.settings import VerifierSettings

app = typer.Typer(name="verifier", help="Look at and convert reward-model checkpoints.", no_args_is_help=True)

Family = Annotated[
    str | None, typer.Option(metavar="NAME", help="Prompt format and read-out, where the files do not say.")
]
Kind = Annotated[VerifierKind | None, typer.Option(help="What it was trained as, where the files do not say.")]


@app.command("inspect")
def inspect_command(
    path: Annotated[Path, typer.Argument(help="Directory of the checkpoint.")], family: Family = None, kind: Kind = None
) -> None:
    """Say which family a checkpoint is and why, and what stands in the way of serving it. Reads no weights.

    Ends with 0 when it can be served and with 3 when not.
    """
    with told_faults():
        from services.verifier.inspection import inspect_checkpoint  # torch: seconds to import

        found = inspect_checkpoint(_settings(path, family=family, kind=kind))
        console = Console()
        console.print(_table({"checkpoint": str(path), **found.facts}))
        for what, mend in found.refusals:
            console.print(Text.assemble(("refused: ", "bold red"), what, ("\n   mend: ", "bold"), mend), soft_wrap=True)
    raise typer.Exit(0 if found.servable else ModelLoadError.exit_code)


@app.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The downloaded checkpoint (.bin or safetensors).")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A directory that does not exist yet.")],
    family: Family = None,
    kind: Kind = None,
    eos_readout: Annotated[
        str | None, typer.Option(metavar="at|before", help="Position of an easy-to-hard outcome score.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Load the result and hold it to its self-test.")] = True,
) -> None:
    """Write a checkpoint as safetensors with a config that names its family, as the service loads it.

    Pickled weights are read by torch's restricted unpickler only, and code in them is never run. The head of an
    easy-to-hard verifier becomes its one row. The check loads the model in float32 on the CPU.
    """
    with told_faults():
        settings = _settings(source, family=family, kind=kind, eos_readout=eos_readout)
        from services.verifier.conversion import convert

        done = convert(source, target, settings, check=check)
        facts = {
            "written": str(target),
            "family": f"{done.family}, because {done.why}",
            "kind": done.kind,
            "tensors": f"{done.tensors} in {done.shards} files",
            "head": "kept" if done.collapsed is None else f"{done.collapsed} rows became one",
            "self-test": "passed" if check else "not run",
        }
        Console().print(_table(facts))


def _settings(path: Path, **said: Any) -> VerifierSettings:
    given = {name: value for name, value in said.items() if value is not None}
    return load_settings(VerifierSettings, model=str(path), **given)


def _table(facts: dict[str, str]) -> Table:
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        # Text, not markup: names of tensors and paths hold brackets.
        table.add_row(name, Text(value))
    return table

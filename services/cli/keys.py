"""`e2h keys`: making, listing and revoking API keys. A server that reads the file follows at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.faults import EXIT_USAGE, told_faults
from services.core.errors import NotFound
from services.runtime.keys import (
    SCOPES,
    KeyRecord,
    KeysFileError,
    Scope,
    change_keys,
    new_key,
    prefix_of,
    read_keys,
)

app = typer.Typer(name="keys", help="Make, list and revoke API keys.", no_args_is_help=True)

File = Annotated[
    Path,
    typer.Option("--file", envvar="E2H_API_KEYS_FILE", help="Where the keys' digests are kept.", dir_okay=False),
]


@app.command("create")
def create_command(
    file: File,
    tenant: Annotated[str, typer.Option(help="Whom the key is for: a-z, 0-9, dot, dash, underscore.")],
    scope: Annotated[list[str], typer.Option(help=f"What it may do; may be repeated: {', '.join(SCOPES)}.")],
    rate: Annotated[str | None, typer.Option(help="Its own limit, as 60/minute.  [default: the server's]")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Lifetime.  [default: none]")] = None,
) -> None:
    """Make a key and print it: the only time that it can be seen, since the file holds its digest alone."""
    ends = None if expires_in_days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(expires_in_days)
    made: list[str] = []

    def added(present: tuple[KeyRecord, ...]) -> tuple[KeyRecord, ...]:
        taken = {record.prefix for record in present}
        key, record = new_key(tenant, cast(list[Scope], scope), taken=taken, expires=ends, rate=rate)
        made.append(key)
        return (*present, record)

    with _told_file_faults():
        change_keys(file, added)
    typer.echo(made[0])


@app.command("list")
def list_command(file: File) -> None:
    """Show the keys of the file: prefix, tenant, scopes, rate, dates."""
    with _told_file_faults():
        records = read_keys(file)
    now = datetime.now(UTC)
    table = Table(show_edge=False, pad_edge=False)
    for column in ("prefix", "tenant", "scopes", "rate", "created", "expires"):
        table.add_column(column, overflow="fold")
    for record in records:
        ends = "never" if record.expires is None else f"{record.expires:%Y-%m-%d}"
        marked = Text(f"{ends} (expired)", "red") if record.expired(now) else Text(ends)
        scopes = ", ".join(record.scopes)
        table.add_row(record.prefix, record.tenant, scopes, record.rate or "", f"{record.created:%Y-%m-%d}", marked)
    Console().print(table)


@app.command("revoke")
def revoke_command(file: File, prefix: Annotated[str, typer.Argument(help="The 8 characters after e2h_.")]) -> None:
    """Take a key out of the file: the next request with it is refused."""
    named = prefix_of(prefix) or prefix

    def rest(present: tuple[KeyRecord, ...]) -> tuple[KeyRecord, ...]:
        if all(record.prefix != named for record in present):
            raise NotFound("no key of the file has this prefix (`e2h keys list`)")
        return tuple(record for record in present if record.prefix != named)

    with _told_file_faults():
        change_keys(file, rest)


@contextmanager
def _told_file_faults() -> Iterator[None]:
    try:
        with told_faults():
            yield
    except (KeysFileError, OSError) as error:
        said = str(error) if isinstance(error, KeysFileError) else f"the file of keys: {error.strerror}"
        Console(stderr=True).print(f"error: {said}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_USAGE) from None

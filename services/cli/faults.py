"""How a command ends badly: one clear line on standard error and a meaningful exit code, never a stack."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError
from rich.console import Console

from services.core.errors import E2HError, ModelLoadError
from services.runtime.faults import invalid_request

EXIT_FAILED = 1
EXIT_USAGE = 2


@contextmanager
def told_faults() -> Iterator[None]:
    """Faults of the block, told. A model that cannot be loaded ends with 3, bad input with 2, the rest with 1."""
    console = Console(stderr=True, highlight=False)
    try:
        yield
    except ModelLoadError as error:
        console.print(f"[red]error:[/] {error.message}\n  mend: {error.hint}", soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except ValidationError as error:
        console.print(f"[red]error:[/] {invalid_request(error).message}", soft_wrap=True)
        raise typer.Exit(EXIT_USAGE) from None
    except E2HError as error:
        console.print(f"[red]error:[/] {error.message} [{error.code}]", soft_wrap=True, markup=False)
        raise typer.Exit(EXIT_USAGE if error.status < 500 and not error.retryable else EXIT_FAILED) from None
    except KeyboardInterrupt:
        console.print("interrupted")
        raise typer.Exit(130) from None

"""How a command ends badly: one clear line on standard error and a meaningful exit code, never a stack."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.text import Text

from services.core.errors import E2HError, ModelLoadError
from services.runtime.faults import invalid_request

EXIT_FAILED = 1
EXIT_USAGE = 2


@contextmanager
def told_faults() -> Iterator[None]:
    """Faults of the block, told. A model that cannot be loaded ends with 3, bad input with 2, the rest with 1."""
    try:
        yield
    except ModelLoadError as error:
        _tell(error.message, mend=error.hint)
        raise typer.Exit(error.exit_code) from None
    except (ValidationError, SettingsError) as error:
        _tell(invalid_request(error).message if isinstance(error, ValidationError) else str(error))
        raise typer.Exit(EXIT_USAGE) from None
    except E2HError as error:
        _tell(f"{error.message} [{error.code}]")
        raise typer.Exit(EXIT_USAGE if error.status < 500 and not error.retryable else EXIT_FAILED) from None
    except KeyboardInterrupt:
        _tell("interrupted")
        raise typer.Exit(130) from None


def _tell(message: str, mend: str | None = None) -> None:
    # Text, not markup: messages hold paths and `e2h[generator]`.
    line = Text.assemble(("error: ", "red"), message)
    if mend is not None:
        line.append(f"\n  mend: {mend}")
    Console(stderr=True, highlight=False).print(line, soft_wrap=True)

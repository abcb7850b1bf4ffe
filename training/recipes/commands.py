"""The command line of a recipe: a config file, overrides, one line for what cannot be run. Trains nothing itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.core.errors import E2HError, ModelLoadError
from training.data.records import DataError
from training.recipes.config import ConfigError


def recipe_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all recipes share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, see training/configs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    return parser


def run_command(work: Callable[[], Any]) -> None:
    """Print what `work` gives; a config, data or service that cannot be used ends with its message and code 2."""
    try:
        print(work())
    except (ConfigError, DataError, ModelLoadError, E2HError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None

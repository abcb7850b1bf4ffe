"""The config file of a recipe: TOML, checked whole before anything is loaded. Reads one file, knows no model.

Unknown keys are refused, every key is honoured. `--set run.seed=3` overrides a value; the right-hand side is read as
TOML, and as plain text where it is none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.core.contracts import NonBlank

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
Folder = Annotated[Path, Field(strict=False)]  # TOML has no paths
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class ConfigError(Exception):
    """A config that cannot be run; the message names the key."""


class Part(BaseModel):
    """Base of every table of a config file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Lora(Part):
    """LoRA adapters (Hu et al., 2021) on a frozen model; merged into it at the end."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: Literal["all-linear"] | list[NonBlank] = "all-linear"


class ModelPart(Part):
    """`path` is a folder or a hub id; `max_length` in tokens: longer examples are left out and counted, never cut."""

    path: NonBlank
    max_length: int = Field(default=1024, ge=16)
    lora: Lora | None = None
    gradient_checkpointing: bool = False


class Optimizer(Part):
    """AdamW. A step takes `batch_size` x `accumulation` examples; `max_steps`, when given, replaces `epochs`."""

    learning_rate: float = Field(default=2e-5, gt=0.0)
    batch_size: int = Field(default=8, ge=1)
    accumulation: int = Field(default=1, ge=1)
    epochs: float = Field(default=2.0, gt=0.0)
    max_steps: int | None = Field(default=None, ge=1)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    beta2: float = Field(default=0.999, gt=0.0, lt=1.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)


class Run(Part):
    """Where, on what, from which seed. `save_every` is in steps (iterations for ppo, rest, dpo: always one)."""

    out: Folder
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "auto"
    save_every: int | None = Field(default=None, ge=1)
    log_every: int = Field(default=10, ge=1)
    resume: bool = False


class Recipe(Part):
    """The tables that every recipe has."""

    model: ModelPart
    run: Run
    optimizer: Optimizer = Field(default_factory=Optimizer)


AnyRecipe = TypeVar("AnyRecipe", bound=BaseModel)


def load_recipe(kind: type[AnyRecipe], file: Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """The recipe of `file` with `key=value` overrides. Raises `ConfigError`."""
    try:
        tables: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file.name} cannot be read as TOML: {error}") from error
    for override in overrides:
        _override(tables, override)
    return check_recipe(kind, tables)


def check_recipe(kind: type[AnyRecipe], tables: dict[str, Any]) -> AnyRecipe:
    """The recipe of these tables. Raises `ConfigError` that names the first key at fault."""
    try:
        return kind.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc'])) or 'config'}: {first['msg']}") from error


def _override(tables: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *path, last = key.split(".")
    if not equals or not all((*path, last)):
        raise ConfigError("an override reads key=value, as in run.seed=3")
    here: Any = tables
    for name in path:
        here = _inside(here, name, key)
    if isinstance(here, list):
        here[_place(here, last, key)] = _value(text)
    else:
        here[last] = _value(text)


def _inside(here: Any, name: str, key: str) -> Any:
    found = here[_place(here, name, key)] if isinstance(here, list) else here.setdefault(name, {})
    if not isinstance(found, dict | list):
        raise ConfigError(f"{key}: {name} is no table")
    return found


def _place(items: list[Any], name: str, key: str) -> int:
    if not name.isdecimal() or int(name) >= len(items):
        raise ConfigError(f"{key}: {name} is no place in a list of {len(items)}")
    return int(name)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

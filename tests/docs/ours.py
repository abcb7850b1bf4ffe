"""Rules of our own programs: `e2h`, `python -m ...`, make, and settings. Parsed by their own parsers, never run.

Each rule raises `AssertionError`, `ValueError` or `ConfigError` for a command that would not work, and gives what it
needs.
"""

import argparse
import importlib
import importlib.util
import inspect
import re
import tomllib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

import pytest
import typer
import typer.main
from typer.core import TyperGroup

from services.cli.doctor import SETTINGS
from services.cli.main import app
from services.cli.remote import API_KEY_VARIABLE
from tests.docs.shell import ROOT, Command
from training.recipes.config import Part, check_recipe, load_recipe

_FIELDS = {
    f"{settings.model_config['env_prefix']}{name}".upper(): (settings, name)
    for settings in SETTINGS
    for name in settings.model_fields
}
# A setting that is refused without another.
_TOGETHER = {
    "E2H_ORCHESTRATOR_OPENAI_BASE_URL": {"openai_model": "m"},
    "E2H_JOBS_REDIS_URL": {"results_url": "out"},
}
VARIABLES = {*_FIELDS, "E2H_URL", API_KEY_VARIABLE, "E2H_SECRETS_DIR"}
_HUB_ID = re.compile(r"[A-Z][\w.-]*/[\w.-]+")
_Refused: Any = typer.BadParameter.__mro__[1]  # of typer's parser, whichever of its kinds
_HUB_SETS = {"math500", "gsm8k"}
_MANY_MINUTES = {"demo", "test", "lab", "report"}


def variable(name: str, value: str) -> None:
    """`E2H_*` is a setting and takes this value; any other variable is the shell's."""
    if not name.startswith("E2H_"):
        return
    assert name in VARIABLES, f"{name} is no setting"
    if name in _FIELDS and "$" not in value:
        settings, field = _FIELDS[name]
        settings.model_validate({**_TOGETHER.get(name, {}), field: value})


def e2h(command: Command) -> set[str]:
    """The words are taken by the command line's own parser. Its callbacks that end it (--version) are not called."""
    found = click_parsed(command.words[1:])
    values = [found.get(name) for name in ("generator", "verifier", "dataset")]
    hub = any(isinstance(value, str) and (_HUB_ID.fullmatch(value) or value in _HUB_SETS) for value in values)
    long = found["command"] == "e2h eval" or found.get("rate") == "sweep"
    return ({"the hub"} if hub else set()) | ({"minutes"} if long else set())


def click_parsed(words: Sequence[str]) -> dict[str, Any]:
    """The values of the options of a subcommand, by name, and under `command` the subcommand."""
    try:
        context = _click_context(words)
    except _Refused as refused:
        raise AssertionError(f"e2h {' '.join(words)}: {refused}") from refused
    return {**context.params, "command": context.command_path}


def _click_context(words: Sequence[str]) -> Any:
    current: Any = typer.main.get_command(app)
    name: str | None = "e2h"
    rest, parent = list(words), None
    while isinstance(current, TyperGroup):
        assert rest, f"{name} needs a subcommand"
        parent = current.make_context(name, rest, parent=parent)
        name, current, rest = current.resolve_command(parent, [*parent._protected_args, *parent.args])
    return current.make_context(name, rest, parent=parent)


def python(command: Command) -> set[str]:
    """`python -m MODULE ...` or `python FILE ...`: there is one, and its own parser takes the options."""
    words = list(command.words[1:])
    if words[0] == "-m":
        name, rest = words[1], words[2:]
    else:
        assert (ROOT / words[0]).is_file(), f"no {words[0]}"
        name, rest = words[0].removesuffix(".py").replace("/", "."), words[1:]
    if name.startswith("deploy."):
        return set()  # in no package: test_docs_commands.py runs it
    assert importlib.util.find_spec(name) is not None, f"no module {name}"
    if name.startswith("services."):
        assert importlib.util.find_spec(f"{name}.__main__") is not None
        assert not rest, f"{name} takes settings, not options"
        return _service_needs(command)
    return _parsed(importlib.import_module(name), rest, command)


def _service_needs(command: Command) -> set[str]:
    return {"a GPU"} if "E2H_GENERATOR_GPU_MEMORY_SHARE" in command.assigned else set()


def _parsed(module: ModuleType, words: list[str], command: Command) -> set[str]:
    options = argparse_parsed(module, words)
    if getattr(options, "overrides", None) is not None:
        _recipe(module, options, command.files)
    if getattr(options, "architecture", None) is not None:
        assert (ROOT / options.architecture).is_file()
    needs = {"a GPU"} if getattr(options, "device", None) == "cuda" else set()
    quick = module.__name__ in ("training.lab.problem", "training.memory", "training.lab.workload")
    return needs if quick else needs | {"minutes"}


class _Parsed(Exception):
    """What the parser gave, instead of what would follow."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options


def argparse_parsed(module: ModuleType, words: Sequence[str]) -> argparse.Namespace:
    """The options as `module.main` would have them; what comes after its parsing is not run."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> NoReturn:
        raise _Parsed(parse(self, list(words), namespace))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            module.main(*[list(words)] if inspect.signature(module.main).parameters else [])
        except _Parsed as parsed:
            return parsed.options
        except SystemExit as refused:
            raise AssertionError(f"{module.__name__} does not take {' '.join(words)}") from refused
    raise AssertionError(f"{module.__name__} has no parser of options")


def _recipe(module: ModuleType, options: argparse.Namespace, files: dict[str, str]) -> None:
    """The config is one of the recipe's, with these overrides: a file here, or one that the page wrote before."""
    kinds = getattr(module, "KINDS", None)
    recipe = kinds[options.recipe] if kinds else _recipe_of(module)
    written = files.get(str(options.config))
    if written is None:
        load_recipe(recipe, ROOT / options.config, options.overrides)
    else:
        check_recipe(recipe, tomllib.loads(written))


def _recipe_of(module: ModuleType) -> type[Part]:
    own = [each for each in vars(module).values() if getattr(each, "__module__", None) == module.__name__]
    (found,) = (each for each in own if isinstance(each, type) and each.__name__.endswith("Recipe"))
    assert issubclass(found, Part)
    return found


def make(command: Command) -> set[str]:
    """The targets are the Makefile's."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    asked = [word for word in command.words[1:] if "=" not in word]
    assert asked, "make alone shows its help"
    assert set(asked) <= targets, f"no target {sorted(set(asked) - targets)}"
    return {"minutes"} if set(asked) & _MANY_MINUTES else set()

"""Commands that stand in a sentence: what they name exists. They may be cut short and hold words in capitals."""

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from services.cli.main import app
from tests.docs.ours import argparse_parsed
from tests.docs.shell import PAGES, ROOT, Block, commands
from tests.docs.tools import RULES

_PROGRAMS = ("e2h", "python", "make", "pip", "docker")


def spans() -> Iterator[tuple[str, str]]:
    """(page:line, command) of code in sentences, outside of blocks."""
    for page in PAGES:
        inside = False
        for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
            inside ^= line.startswith("```")
            for code in re.findall(r"`([^`]+)`", "" if inside else line):
                words = [word for word in code.split() if "=" not in word]
                if len(words) > 1 and words[0].removeprefix(".venv/bin/") in _PROGRAMS:
                    yield f"{page}:{number}", code


def check(code: str) -> None:
    """Raises `AssertionError` for what there is not."""
    optional = re.compile(r"(?<=\s)\[|\](?=\s|$)")  # [--limit 20]
    words = [word for word in shlex.split(optional.sub("", code)) if not re.match(r"E2H_\w+=", word)]
    program = words[0].removeprefix(".venv/bin/")
    if program == "e2h":
        _check_e2h(words[1:])
    elif words[:2] == [words[0], "-m"]:
        for name in _alternatives(words[2]):
            _check_module(name, words[3:])
    elif not any(word.isupper() or word.endswith("...") for word in words):
        RULES[program](next(iter(commands(Block("", 1, "sh", (code,), "")))))


def _check_e2h(words: list[str]) -> None:
    current: Any = typer.main.get_command(app)
    rest = list(words)
    while isinstance(current, TyperGroup) and rest and not rest[0].startswith("-"):
        assert rest[0] in current.commands, f"e2h has no {rest[0]}"
        current = current.commands[rest.pop(0)]
    known = {option for parameter in current.params for option in parameter.opts} | {"--help"}
    assert {word for word in rest if word.startswith("-")} <= known


def _alternatives(name: str) -> list[str]:
    """`training.{sft,dpo}` names two modules."""
    match = re.fullmatch(r"(.*)\{(.*)\}", name)
    return [match[1] + each for each in match[2].split(",")] if match else [name]


def _check_module(name: str, words: list[str]) -> None:
    assert importlib.util.find_spec(name) is not None, f"no module {name}"
    if words:
        argparse_parsed(importlib.import_module(name), words)


@pytest.mark.parametrize("code", [pytest.param(code, id=f"{where} {code}"[:100]) for where, code in spans()])
def test_a_command_in_a_sentence_names_what_there_is(code: str) -> None:
    check(code)


@pytest.mark.parametrize(
    "code",
    ["e2h slove", "e2h bench solve --n-samples", "python -m training.lab.puzzle", "make everything",
     "python -m training.{sft,grpo} CONFIG", "pip install '.[gpu]'", "docker compose up mysql"],
)  # fmt: skip
def test_a_wrong_one_would_be_found(code: str) -> None:
    with pytest.raises(AssertionError):
        check(code)

"""Every command of the documentation: parsed by what would run it, run where that takes seconds, or marked by its need.

A command that no rule knows fails here, with its file and line.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.needs import NEEDS, unsaid
from tests.docs.ours import VARIABLES, variable
from tests.docs.shell import PAGES, ROOT, Block, Command, blocks, commands
from tests.docs.tools import RULES
from tests.evaluation.made_up import made_up_store
from training.recipes.config import ConfigError

COMMANDS = [
    command for page in PAGES for block in blocks(page) if block.language == "sh" for command in commands(block)
]
# What needs no model and takes seconds, by its first words; the tests run it as it stands in the page.
QUICK = [
    ("e2h", "keys"),
    ("e2h", "grade"),
    ("e2h", "report"),
    ("e2h", "process-bench"),
    ("e2h", "verifier", "inspect", "models/verifier"),
    ("python", "-m", "training.lab.problem"),
    ("python", "-m", "training.memory"),
    ("python3", "deploy/docker/make_secrets.py"),
    ("mkdir",),
    ("cat",),
]


def program(command: Command) -> str:
    return command.words[0].removeprefix(".venv/bin/")


def quick(command: Command) -> bool:
    words = (program(command), *command.words[1:]) if command.words else ()
    return any(words[: len(first)] == first for first in QUICK)


def check(command: Command) -> None:
    """Raises what is wrong with the command."""
    for name, value in command.assigned.items():
        variable(name, value)
    if not command.words:
        return
    assert program(command) in RULES, f"no rule for {program(command)}"
    missing = unsaid(RULES[program(command)](command), command.block.section)
    assert not missing, f"the text near it must say that it needs {', '.join(sorted(missing))}"


@pytest.mark.parametrize("command", [pytest.param(each, id=f"{each.where} {each}"[:100]) for each in COMMANDS])
def test_a_command_is_one_that_works_or_says_what_it_needs(command: Command) -> None:
    try:
        check(command)
    except Exception as wrong:
        raise AssertionError(f"{command.where}: {command}\n{type(wrong).__name__}: {wrong}") from wrong


@pytest.mark.parametrize("page", [page for page in PAGES if any(quick(c) for c in COMMANDS if c.block.page == page)])
def test_what_takes_seconds_runs(page: str, tmp_path: Path) -> None:
    """In the order of the page, in one empty folder with our files beside, so that one finds what another wrote."""
    for name in ("deploy", "models", "training"):
        (tmp_path / name).symlink_to(ROOT / name)
    made_up_store(str(tmp_path / "out/lab"), [1, 2, 4, 5])
    for command in (each for each in COMMANDS if each.block.page == page and quick(each)):
        run(command, tmp_path)


def run(command: Command, folder: Path) -> None:
    for name, content in command.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    if program(command) == "cat":
        return
    starts = {"e2h": [sys.executable, "-m", "services.cli.main"], "mkdir": ["mkdir"]}
    words = [*starts.get(program(command), [sys.executable]), *command.words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **command.assigned}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command.where}: {command}\n{done.stdout}{done.stderr}"
    if command.output is not None:
        (folder / command.output).write_text(done.stdout)


@pytest.mark.parametrize("page", PAGES)
def test_a_variable_that_a_page_names_is_a_setting(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"\bE2H_[A-Z0-9_]+\b", text)) - VARIABLES
    families = {name for name in named if name.endswith("_") and any(each.startswith(name) for each in VARIABLES)}
    assert named - families == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_to_a_file(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not ((ROOT / page).parent / target).exists()] == []


def one(line: str, section: str = "") -> Command:
    return list(commands(Block("page", 1, "sh", tuple(line.splitlines()), section)))[-1]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(".venv/bin/e2h solve x --samples 4", id="an option that e2h has not"),
        pytest.param(".venv/bin/e2h solve x --n 0", id="a value that the option refuses"),
        pytest.param("e2h sovle x", id="a subcommand that e2h has not"),
        pytest.param("e2h up --generator Qwen/Qwen2.5-Math-1.5B-Instruct", id="the hub, without a mark"),
        pytest.param("python -m training.lab.problem --level 4", id="a required option is missing"),
        pytest.param("python -m training.lab.puzzle", id="no module"),
        pytest.param("python -m training.reward training/configs/none.toml # minutes", id="no config"),
        pytest.param("python -m services.generator --port 1", id="a service takes no options"),
        pytest.param("python benchmarks/nothing.py", id="no script"),
        pytest.param("E2H_VERIFIER_MODLE=x e2h up", id="no setting"),
        pytest.param("E2H_GENERATOR_GPU_MEMORY_SHARE=2 e2h up", id="a setting with a value that it refuses"),
        pytest.param("make everything", id="no target"),
        pytest.param("docker compose --profile tpu up", id="no profile"),
        pytest.param("docker compose exec mysql cat /x", id="no service"),
        pytest.param("kubectl apply -k deploy/kubernetes/overlays/none", id="no overlay"),
        pytest.param("curl localhost:8100/v1/sovle", id="no route"),
        pytest.param("curl localhost:8100/v1/solve -d '{}'", id="no content type"),
        pytest.param(
            'curl localhost:8100/v1/solve -H \'content-type: application/json\' -d \'{"problem": "x", "k": 4}\'',
            id="a field that the contract has not",
        ),
        pytest.param("curl localhost:8101/v1/solve -d '{}'", id="a route of another service"),
        pytest.param("conda install e2h", id="a program without a rule"),
    ],
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    command = one(line)
    with pytest.raises((AssertionError, ValueError, ConfigError)):
        check(command)


def test_the_shell_of_the_pages_is_read_as_a_shell_reads_it() -> None:
    lines = [
        'A=1 one "$(two x)" \\',
        "  | three > out & # four",
        "until five -sf; do sleep 1; done",
        "cat > kept <<'END'",
        "six seven",
        "END",
    ]
    found = list(commands(Block("page", 10, "sh", tuple(lines), "")))
    assert [(c.line, *c.words) for c in found] == [
        (10, "two", "x"),
        (10, "one", "$(two x)"),
        (10, "three"),
        (12, "five", "-sf"),
        (12, "sleep", "1"),
        (13, "cat"),
    ]
    assert found[1].assigned == {"A": "1"}
    assert (found[2].output, found[5].files) == ("out", {"kept": "six seven\n"})


def test_a_need_is_told_in_words_near_the_command() -> None:
    assert unsaid({"a GPU"}, "Runs anywhere.\n") == {"a GPU"}
    assert unsaid({"a GPU", "docker"}, "Needs a GPU, docker 24 or later") == set()
    assert unsaid(set(NEEDS), "") == set(NEEDS)

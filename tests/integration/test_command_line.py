"""The command line as a person runs it, and how processes end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.processes import ROOT, Process, e2h, free_port, service
from tests.tiny import edit_config, save_verifier
from training.lab.domain import make_problem

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

PROBLEM = make_problem(level=2, seed=5)


def test_solve_shows_classes_and_a_score_on_each_step(all_in_one: Process) -> None:
    done = e2h("solve", PROBLEM.question, "--n", "8", "--temperature", "1", "--seed", "7", "--url", all_in_one.url)
    assert done.returncode == 0, done.stderr
    for expected in ("Answer", "votes", "weight", "Winning solution", "whole solution", "8 samples"):
        assert expected in done.stdout


def test_solve_here_loads_both_models_and_prints_json_alone() -> None:
    arguments = ("--n", "4", "--temperature", "1", "--seed", "7", "--reference", PROBLEM.answer, "--json")
    done = e2h("solve", "-", *arguments, stdin=PROBLEM.question)
    assert done.returncode == 0, done.stderr
    solved = json.loads(done.stdout)
    assert solved["problem"] == PROBLEM.question
    assert len(solved["candidates"]) == 4
    assert isinstance(solved["correct"], bool)


@pytest.mark.parametrize("where", ["here", "server"])
def test_score_scores_each_step_of_a_file(all_in_one: Process, tmp_path: Path, where: str) -> None:
    (tmp_path / "right.txt").write_text(PROBLEM.solution)
    options = ["--url", all_in_one.url] if where == "server" else []
    done = e2h("score", PROBLEM.question, str(tmp_path / "right.txt"), "--json", *options)
    assert done.returncode == 0, done.stderr
    (solution,) = json.loads(done.stdout)["solutions"]
    assert len(solution["steps"]) == len(PROBLEM.steps)
    assert e2h("score", PROBLEM.question, str(tmp_path / "none.txt")).returncode == 2


def test_bad_options_end_with_one_clear_line() -> None:
    done = e2h("solve", "  ", "--url", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "blank" in done.stderr
    unreachable = e2h("solve", "x", "--url", f"http://127.0.0.1:{free_port()}")
    assert unreachable.returncode == 1
    assert "Traceback" not in unreachable.stderr


def test_doctor_names_what_is_wrong_and_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    good = e2h("doctor")
    assert good.returncode == 0, good.stdout
    assert "models/verifier" in good.stdout.replace("\n", "")
    assert ("libnuma.so.1" in good.stdout) != torch.cuda.is_available()
    monkeypatch.setenv("E2H_VERIFIER_MODLE", "x")
    bad = e2h("doctor", "--generator", "models/none")
    assert bad.returncode == 1
    assert "E2H_VERIFIER_MODEL" in bad.stdout.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("fault", ["missing", "pickled", "foreign tokenizer", "golden mismatch"])
def test_a_model_that_cannot_be_served_ends_the_process_with_3_and_the_mend(tmp_path: Path, fault: str) -> None:
    model = tmp_path / "model"
    if fault != "missing":
        save_verifier(model)
    if fault == "pickled":
        (model / "model.safetensors").rename(model / "pytorch_model.bin")
    if fault == "foreign tokenizer":
        tokenizer = json.loads((model / "tokenizer.json").read_text())
        tokenizer["added_tokens"] += [
            {**tokenizer["added_tokens"][0], "id": 5000 + i, "content": f"<extra{i}>"} for i in range(3000)
        ]
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    if fault == "golden mismatch":
        golden = {"problem": "x", "steps": ["y"], "scores": [0.123], "outcome": 0.456}
        edit_config(model, e2h={"family": "easy-to-hard", "kind": "oprm", "golden": golden})
    with pytest.raises(RuntimeError) as ended, service("verifier", tmp_path / "log", E2H_VERIFIER_MODEL=str(model)):
        pass
    output = str(ended.value)
    assert "ended with 3" in output
    assert "error:" in output
    assert "mend:" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-m", "services.generator"], id="generator"),
        pytest.param(["-m", "services.cli.main", "up", "--port", "0"], id="up"),
        pytest.param(["-m", "services.cli.main", "solve", "6 times 7?"], id="solve"),
    ],
)
def test_a_missing_model_ends_every_command_with_3_and_the_mend(arguments: list[str]) -> None:
    missing = {"E2H_GENERATOR_MODEL": "models/none[/x]", "E2H_VERIFIER_MODEL": "models/none[/x]"}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **missing}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 3
    assert "error: model directory models/none[/x] does not exist" in done.stderr
    assert "mend:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [
        pytest.param(["-m", "services.orchestrator"], "E2H_ORCHESTRATOR_PORT", "abc", id="no number"),
        pytest.param(["-m", "services.orchestrator"], "E2H_ORCHESTRATOR_GENERATOR_URL", "http://h:99999", id="no port"),
        pytest.param(["-m", "services.cli.main", "doctor"], "E2H_GENERATOR_DTYPE", "int3", id="no choice"),
    ],
)
def test_a_wrong_setting_ends_with_2_and_names_the_variable(command: list[str], variable: str, value: str) -> None:
    environment = {**os.environ, variable: value}
    arguments = [sys.executable, *command]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert variable in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_ends_a_service_with_0(tmp_path: Path) -> None:
    model = save_verifier(tmp_path / "model")
    with service("verifier", tmp_path / "log", E2H_VERIFIER_MODEL=str(model)) as verifier:
        assert verifier.stop() == 0
        assert "Traceback" not in verifier.output


def test_a_taken_port_ends_the_process_with_1(tmp_path: Path) -> None:
    model = str(save_verifier(tmp_path / "model"))
    with service("verifier", tmp_path / "first.log", E2H_VERIFIER_MODEL=model) as first:
        port = first.url.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "services.verifier"]
        environment = {"E2H_VERIFIER_MODEL": model, "E2H_VERIFIER_PORT": port}
        done = subprocess.run(
            ["env", *(f"{k}={v}" for k, v in environment.items()), *command], cwd=ROOT, timeout=120, check=False
        )
    assert done.returncode == 1

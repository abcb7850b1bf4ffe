"""The load tester's workload is what its command makes, on any machine."""

import json

import pytest

from services.cli.bench.workload import default_workload
from training.lab import workload as command
from training.lab.domain import Split, make_problem


def test_the_file_that_comes_with_the_load_tester_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command.main([])
    assert capsys.readouterr().out == default_workload().read_text(encoding="utf-8")


def test_the_workload_is_of_the_seed_and_holds_right_and_wrong_solutions() -> None:
    lines = [json.loads(line) for line in command.workload(6, 8, seed=1)]
    assert lines == [json.loads(line) for line in command.workload(6, 8, seed=1)]
    assert lines != [json.loads(line) for line in command.workload(6, 8, seed=2)]
    problems = [make_problem(command.LEVELS[i % 3], command.FIRST_SEED + 1000 + i, Split.HELD_OUT) for i in range(6)]
    assert [line["problem"] for line in lines] == [problem.question for problem in problems]
    right = [p.solution in line["solutions"] for p, line in zip(problems, lines, strict=True)]
    assert any(right)
    assert all(len(set(line["solutions"])) > 1 for line in lines)

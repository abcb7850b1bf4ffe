"""The lab's problems, their checker, the corruptions and the command that prints a problem."""

import random
import re

import pytest

from training.lab import problem as problem_command
from training.lab.checker import Fault, check
from training.lab.corrupt import corrupt
from training.lab.domain import LEVELS, MODULUS, STEPS_OF_LEVEL, Problem, Split, make_problem, solution_text, split_of
from training.lab.examples import easy_problems


@pytest.fixture
def example() -> Problem:
    return make_problem(3, 11)


@pytest.mark.parametrize("level", LEVELS)
def test_a_problem_is_a_function_of_level_seed_and_split(level: int) -> None:
    assert make_problem(level, 5) == make_problem(level, 5)
    assert make_problem(level, 5).question != make_problem(level, 6).question
    assert make_problem(level, 5).question != make_problem(level, 5, Split.TRAIN).question


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level"):
        make_problem(6, 1)


@pytest.mark.parametrize("level", LEVELS)
def test_the_right_solution_is_right_and_as_long_as_the_level_says(level: int) -> None:
    for seed in range(50):
        made = make_problem(level, seed)
        low, high = STEPS_OF_LEVEL[level]
        assert low <= len(made.steps) <= high
        assert check(made, made.solution).all_right


def test_answers_spread_over_the_whole_range() -> None:
    answers = {make_problem(5, seed).answer for seed in range(2000)}
    assert answers == {str(number) for number in range(MODULUS)}


def test_no_held_out_computation_is_a_training_computation() -> None:
    trained = {p.computation for p in easy_problems(600, 0)}
    held_out = {make_problem(level, seed).computation for level in (1, 2, 3) for seed in range(200)}
    assert not trained & held_out
    assert all(split_of(c) is Split.TRAIN for c in trained)
    assert all(split_of(c) is Split.HELD_OUT for c in held_out)


def _replaced(example: Problem, k: int, pattern: str, new: str) -> list[str]:
    steps = list(example.steps)
    steps[k] = re.sub(pattern, new, steps[k], count=1)
    assert steps != list(example.steps)
    return steps


def _wrong(number: str) -> str:
    return str((int(number) + 1) % MODULUS)


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        pytest.param(r"\d+$", Fault.ARITHMETIC, id="a wrong result"),
        pytest.param(r"(?<=, )\d+", Fault.VALUE, id="a number that no step wrote"),
        pytest.param(r"\d+(?=,)", Fault.COPY, id="a wrong copy of the operand"),
        pytest.param(r"\d+(?= =)", Fault.COPY, id="another operand than the one copied"),
    ],
)
def test_a_wrong_number_in_a_step_is_found_and_named(example: Problem, pattern: str, fault: Fault) -> None:
    old = re.search(pattern, example.steps[1])
    assert old is not None
    steps = _replaced(example, 1, pattern, _wrong(old[0]))
    verdict = check(example, solution_text(steps, example.answer))
    assert verdict.faults[0] is Fault.NONE
    assert verdict.faults[1] is fault
    assert not verdict.all_right


def test_a_step_after_a_wrong_result_is_judged_by_the_number_written(example: Problem) -> None:
    first = _wrong(str(example.values[0]))
    steps = [example.trail[0].step(example.start, int(first))]
    value = int(first)
    for door in example.trail[1:]:
        steps.append(door.step(value, door.apply(value)))
        value = door.apply(value)
    verdict = check(example, solution_text(steps, str(value)))
    assert verdict.labels == (False, True, True, True)
    assert not verdict.answer_right


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("# Answer\n\n5", id="no step"),
        pytest.param("I think it is 5.", id="no format"),
        pytest.param("A: add 3, 5 + 3 = 08\n\n# Answer\n\n8", id="a leading zero"),
        pytest.param("A: add 3, 5 + 3 = ٨\n\n# Answer\n\n8", id="another script's digit"),
    ],
)
def test_other_text_is_no_right_solution(example: Problem, text: str) -> None:
    assert not check(example, text).all_right


def test_missing_and_extra_steps_and_a_wrong_answer_line_are_wrong(example: Problem) -> None:
    steps, answer = list(example.steps), example.answer
    assert not check(example, solution_text(steps[:-1], answer)).all_right
    assert not check(example, solution_text(steps[1:], answer)).all_right
    assert not check(example, solution_text([*steps, steps[-1]], answer)).all_right
    assert not check(example, solution_text(steps, _wrong(answer))).all_right
    assert not check(example, "\n\n".join(steps)).all_right
    assert not check(example, example.solution + "\n\nand more").all_right


def test_steps_in_another_order_are_wrong(example: Problem) -> None:
    steps = [example.steps[1], example.steps[0], *example.steps[2:]]
    assert check(example, solution_text(steps, example.answer)).faults[0] is Fault.DOOR


def test_corruptions_hold_every_kind_of_fault_and_right_solutions_too() -> None:
    rng = random.Random(3)
    verdicts = [check(p, corrupt(p, rng).text) for p in easy_problems(400, 9)]
    found = {fault for verdict in verdicts for fault in verdict.faults}
    assert found >= {Fault.NONE, Fault.ARITHMETIC, Fault.COPY, Fault.VALUE, Fault.DOOR}
    assert 0.1 < sum(v.all_right for v in verdicts) / len(verdicts) < 0.5


def test_the_command_prints_the_problem_and_on_request_its_solution(capsys: pytest.CaptureFixture[str]) -> None:
    made = make_problem(4, 7)
    problem_command.main(["--level", "4", "--seed", "7"])
    assert capsys.readouterr().out == made.question + "\n"
    problem_command.main(["--level", "4", "--seed", "7", "--solution"])
    assert capsys.readouterr().out == f"{made.question}\n\n{made.solution}\n"

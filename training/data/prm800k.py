"""PRM800K (Lightman et al., 2023): step ratings by people. Pure: rows in, labelled solutions out.

A row holds, step by step, rated completions and which of them the solution went on with. Ratings -1 count as wrong, 0
and +1 as right (Sun et al., 2024). The solution itself is one labelled solution; every other rated completion is one of
its own, after the same beginning, with the label of its last step alone: the steps before it are labelled already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.core.answers import extract_answer
from services.core.equivalence import Mode, quick_verdict
from services.core.steps import ANSWER_HEADER, split_answer_block
from training.data.files import Row, text_of
from training.data.records import DataError, LabelledSolution

_LABEL = {-1: 0.0, 0: 1.0, 1: 1.0}
_FINISH_REASONS = ("solution", "found_error", "bad_problem", "give_up")


@dataclass(frozen=True)
class _Rated:
    text: str
    label: float | None


def read(place: str, row: Row) -> Iterator[LabelledSolution]:
    """The labelled solutions of one row. Raises `DataError`."""
    problem, gold, steps, solved = _labelled_steps(place, row)
    taken: list[_Rated] = []
    for step in steps:
        rated = _completions(place, step)
        chosen = _chosen(place, step, rated)
        others = [one for one in rated if one is not chosen and one.label is not None]
        yield from (_solution(problem, [*(_Rated(t.text, None) for t in taken), one], gold) for one in others)
        if chosen is None or not chosen.text:
            break
        taken.append(chosen)
    if any(one.label is not None for one in taken):
        whole = _solution(problem, taken, gold)
        reached = solved and whole.outcome is None and ANSWER_HEADER in whole.steps[-1]
        yield whole.model_copy(update={"outcome": 1.0}) if reached else whole


def _labelled_steps(place: str, row: Row) -> tuple[str, Any, list[Any], bool]:
    """`(problem, gold answer, steps, solved)`; a problem that was reported as broken has no steps."""
    question, label = _table(place, row, "question"), _table(place, row, "label")
    problem, steps = text_of(place, question, "problem"), label.get("steps")
    if label.get("finish_reason") not in _FINISH_REASONS:
        raise DataError(f"{place} has no known finish_reason")
    if not isinstance(steps, list):
        raise DataError(f"{place} has no label.steps")
    reason = label["finish_reason"]
    return problem, question.get("ground_truth_answer"), [] if reason == "bad_problem" else steps, reason == "solution"


def _completions(place: str, step: Any) -> list[_Rated]:
    completions = step.get("completions") if isinstance(step, Mapping) else None
    if completions is None:  # some steps have a human completion alone
        completions = []
    if not isinstance(completions, list):
        raise DataError(f"{place} has a step without completions")
    return [_rated(place, one) for one in completions]


def _rated(place: str, completion: Any) -> _Rated:
    if not isinstance(completion, Mapping):
        raise DataError(f"{place} has a completion that is not an object")
    rating = completion.get("rating")
    if rating is not None and (isinstance(rating, bool) or rating not in _LABEL):
        raise DataError(f"{place} has a rating that is none of -1, 0, 1, null")
    if completion.get("text") == "":  # there are a few; the solution cannot go on with one
        return _Rated("", None)
    return _Rated(_with_answer_apart(text_of(place, completion, "text")), None if rating is None else _LABEL[rating])


def _chosen(place: str, step: Mapping[str, Any], rated: list[_Rated]) -> _Rated | None:
    """What the solution went on with: a completion, a text by the labeller (which counts as right), or nothing."""
    chosen = step.get("chosen_completion")
    if chosen is None:
        human = step.get("human_completion")
        if isinstance(human, Mapping):
            return _Rated(_with_answer_apart(text_of(place, human, "text")), 1.0)
        return rated[0] if len(rated) == 1 else None
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(rated):
        raise DataError(f"{place} has a chosen_completion that is no completion")
    return rated[chosen]


def _with_answer_apart(text: str) -> str:
    """The step with `# Answer` after a blank line and nothing but the answer behind it."""
    reasoning, block = split_answer_block(text)
    if block is None:
        return reasoning
    return f"{reasoning}\n\n{block}" if reasoning else block


def _solution(problem: str, rated: list[_Rated], gold: Any) -> LabelledSolution:
    """A last step that is nothing but the answer block is no step: it ends the one before, and judges the outcome."""
    steps, labels = [one.text for one in rated], [one.label for one in rated]
    said = None
    if len(steps) > 1 and steps[-1].startswith(ANSWER_HEADER):
        block, said = steps.pop(), labels.pop()
        steps[-1] = f"{steps[-1]}\n\n{block}"
    outcome = _outcome(steps[-1], gold)
    return LabelledSolution(problem=problem, steps=steps, labels=labels, outcome=said if outcome is None else outcome)


def _outcome(last: str, gold: Any) -> float | None:
    """Whether the final answer is right, where there is one and the quick comparison can tell."""
    if ANSWER_HEADER not in last or not isinstance(gold, str):
        return None
    answer = extract_answer(last)
    verdict = None if answer is None else quick_verdict(gold, answer, Mode.REFERENCE)
    return None if verdict is None else float(verdict.equal)


def _table(place: str, row: Row, name: str) -> Row:
    value = row.get(name)
    if not isinstance(value, Mapping):
        raise DataError(f"{place} has no {name}")
    return value

"""Whether the plain forward, to which all methods are held, is right itself, and whether it could show a wrong one."""

from dataclasses import replace
from pathlib import Path

import torch
import transformers

from benchmarks.methods import OneAtATime, Values
from benchmarks.models import DTYPES
from benchmarks.running import largest_difference
from benchmarks.workload import Problem, Workload

_SEQUENCES = 4
# A token that moves probabilities by so much tells right from wrong at any precision: ten tolerances of bfloat16 are
# half of all there is.
_MOVES_ENOUGH = 0.1


class CheckFailed(Exception):
    """The scores to compare with are wrong, or say nothing."""


def check_plain(plain: OneAtATime, directory: Path, dtype: str, workload: Workload, tolerance: float) -> None:
    """Compare a few sequences with transformers' own token-classification model.

    Then change one early token of the prompt: scores that hardly move would hide a wrong attention. Raises
    `CheckFailed`.
    """
    few = Problem((workload.problems[0].levels[0][:_SEQUENCES],))
    found = plain.score(few).values
    difference = largest_difference(found, _by_transformers(directory, dtype, plain.body.device, few))
    if not difference <= tolerance:
        raise CheckFailed(f"the plain forward is {difference:.1e} from transformers' own model")
    moved = largest_difference(found, plain.score(_with_other_token(few)).values)
    if not moved > min(10 * tolerance, _MOVES_ENOUGH):
        raise CheckFailed(f"another prompt token moves the scores by {moved:.1e} only")


@torch.inference_mode()
def _by_transformers(directory: Path, dtype: str, device: str, problem: Problem) -> Values:
    model = transformers.AutoModelForTokenClassification.from_pretrained(
        directory, dtype=DTYPES[dtype], local_files_only=True
    )
    model = model.to(device).eval()
    values: Values = []
    for level in problem.levels:
        logits = [model(torch.tensor([e.ids], device=device)).logits[0, :, 0].float() for e in level]
        values.append([torch.sigmoid(one[list(e.rows)]).tolist() for e, one in zip(level, logits, strict=True)])
    return values


def _with_other_token(problem: Problem) -> Problem:
    place = 8  # within the prompt, after the format's own tokens
    other = problem.levels[0][0].ids[place + 1]
    return Problem(
        tuple(
            tuple(replace(e, ids=(*e.ids[:place], other, *e.ids[place + 1 :])) for e in level)
            for level in problem.levels
        )
    )

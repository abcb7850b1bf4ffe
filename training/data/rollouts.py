"""Step labels without people (Wang et al., 2023): complete a solution from every step, and see what comes out.

    python -m training.data.rollouts CONFIG

From the prefix that ends with step k, the generator draws completions; `hard` labels the step right when any reaches
the gold answer, `soft` with the share of those that do. The last step of a solution with an answer is judged by its
answer alone. Solutions are sampled first where the config has no file of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.answers import extract_answer
from services.core.contracts import Completion, EvaluationProblem, GenerateRequest, NonBlank
from services.core.equivalence import Mode, quick_verdict
from services.core.seeds import derive_seed
from services.core.steps import join_steps, split_steps
from training.data.own import write_jsonl
from training.data.records import LabelledSolution
from training.data.sources import Source, problems
from training.recipes.commands import recipe_parser, run_command
from training.recipes.config import Part, Run, load_recipe
from training.sampling.backends import SamplingPart, sampler_of
from training.sampling.port import Sampler

LABELLED = "labelled.jsonl"
How = Literal["hard", "soft"]
Reaches = Callable[[EvaluationProblem, str, bool], bool]


class RolloutRecipe(Part):
    """`sampling.n` solutions of each problem, `completions` from each of their steps. The result is a JSONL file."""

    generator: NonBlank
    run: Run
    sampling: SamplingPart = Field(default_factory=SamplingPart)
    completions: int = Field(default=8, ge=1, le=1024)
    how: How = "hard"
    data: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _nothing_to_resume(self) -> Self:
        if self.run.resume or self.run.save_every is not None:
            raise PydanticCustomError("run", "rollouts have no checkpoints: leave out resume and save_every")
        return self


def reaches_gold(problem: EvaluationProblem, text: str, truncated: bool) -> bool:
    """Whether the text ends in the gold answer, by the quick comparison (no computer algebra)."""
    answer = extract_answer(text, truncated=truncated)
    if answer is None or problem.answer is None:
        return False
    verdict = quick_verdict(problem.answer, answer, Mode.REFERENCE)
    return verdict is not None and verdict.equal


def label_by_rollouts(
    sampler: Sampler,
    solutions: Sequence[tuple[EvaluationProblem, str]],
    sampling: SamplingPart,
    *,
    completions: int,
    how: How,
    seed: int,
    reaches: Reaches = reaches_gold,
) -> list[LabelledSolution]:
    """A label for every step of every solution; texts without a step are left out.

    Equal prefixes of a problem are completed once, and their steps share a label.
    """
    split = [(problem, text, steps) for problem, text in solutions if (steps := split_steps(text))]
    wanted = {
        (problem.problem, prefix): problem for problem, text, steps in split for prefix in _prefixes(steps, _ends(text))
    }
    requests = [
        GenerateRequest(
            problem=problem,
            prefix=prefix,
            n=completions,
            sampling=sampling.requests([wanted[problem, prefix]], derive_seed(seed, place))[0].sampling,
        )
        for place, (problem, prefix) in enumerate(wanted)
    ]
    groups = sampler.sample(requests)
    values = {key: _value(wanted[key], key[1], group, how, reaches) for key, group in zip(wanted, groups, strict=True)}
    return [_labelled(problem, text, steps, values, reaches) for problem, text, steps in split]


def _ends(text: str) -> bool:
    return extract_answer(text) is not None


def _prefixes(steps: Sequence[str], ended: bool) -> list[str]:
    """The solution up to each step that is completed, with the blank line behind it."""
    return [join_steps(steps[: k + 1]) + "\n\n" for k in range(len(steps) - ended)]


def _value(problem: EvaluationProblem, prefix: str, group: Sequence[Completion], how: How, reaches: Reaches) -> float:
    good = [reaches(problem, prefix + one.text, one.finish_reason == "length") for one in group]
    return float(any(good)) if how == "hard" else sum(good) / len(good)


def _labelled(
    problem: EvaluationProblem,
    text: str,
    steps: list[str],
    values: dict[tuple[str, str], float],
    reaches: Reaches,
) -> LabelledSolution:
    ended = _ends(text)
    outcome = float(reaches(problem, text, False)) if ended else None
    labels: list[float | None] = [values[problem.problem, prefix] for prefix in _prefixes(steps, ended)]
    return LabelledSolution(
        problem=problem.problem,
        steps=steps,
        labels=[*labels, outcome] if ended else labels,
        outcome=outcome,
        level=problem.level,
    )


def sample_and_label(recipe: RolloutRecipe, sampler: Sampler | None = None) -> Path:
    """Sample solutions, label their steps, and the file that formats `labelled` reads."""
    sampler = sampler or sampler_of(recipe.sampling, recipe.generator, recipe.run)
    chosen = [problem for problem in problems(recipe.data) if problem.answer is not None]
    groups = sampler.sample(recipe.sampling.requests(chosen, recipe.run.seed))
    texts = [
        (problem, text)
        for problem, group in zip(chosen, groups, strict=True)
        for text in dict.fromkeys(one.text for one in group if one.finish_reason == "stop")
    ]
    labelled = label_by_rollouts(
        sampler,
        texts,
        recipe.sampling,
        completions=recipe.completions,
        how=recipe.how,
        seed=derive_seed(recipe.run.seed, len(chosen)),
    )
    file = recipe.run.out / LABELLED
    write_jsonl(labelled, file)
    return file


def main(arguments: Sequence[str] | None = None) -> None:
    """Label from a config file."""
    options = recipe_parser(__doc__).parse_args(arguments)
    run_command(lambda: sample_and_label(load_recipe(RolloutRecipe, options.config, options.overrides)))


if __name__ == "__main__":
    main()

"""Samples with the verifier's word on them, as ReST, DPO and PPO use it. No training.

The gold answer is looked at on `gold_levels` alone: on the easy problems, in the paper's setting. Everywhere else the
verifier is all that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from services.core.aggregation import Aggregation, aggregate, aggregations_of
from services.core.contracts import Completion, EvaluationProblem, NonBlank
from services.verifier.model import RawScores
from training.data.rollouts import Reaches, reaches_gold
from training.judging.scoring import Scorer
from training.recipes.config import ConfigError, Part, Run
from training.recipes.loading import device_of
from training.sampling.backends import SamplingPart
from training.sampling.port import Sampler

How = Literal["prod", "min", "mean", "last", "outcome"]


class VerifierPart(Part):
    """The verifier's folder, how its scores become one (unless given, as its family does), and where gold counts."""

    path: NonBlank
    aggregation: How | None = None
    gold_levels: list[Annotated[int, Field(ge=1, le=5)]] = Field(default_factory=list)


@dataclass(frozen=True)
class Scored:
    """One sample. `score` is None where it has none; `correct` is None where the gold answer is not to be looked at."""

    problem: EvaluationProblem
    text: str
    finished: bool
    steps: tuple[float, ...]
    score: float | None
    correct: bool | None

    @property
    def rank(self) -> float | None:
        """What samples of a problem are ordered by: the score, and 1 more for a right answer where gold counts."""
        return None if self.score is None else self.score + bool(self.correct)


class Judge:
    """A verifier with the rule by which its scores become one."""

    def __init__(self, part: VerifierPart, run: Run, reaches: Reaches = reaches_gold) -> None:
        self._scorer = Scorer(Path(part.path), device_of(run).type)
        info = self._scorer.model.info
        self.how = Aggregation(part.aggregation) if part.aggregation else info.default_aggregation
        if self.how not in aggregations_of(info.kind):
            raise ConfigError(f"verifier.aggregation: a verifier of kind {info.kind} has no {self.how.value}")
        self._gold_levels = set(part.gold_levels)
        self._reaches = reaches

    def score(self, problem: EvaluationProblem, completions: Sequence[Completion]) -> list[Scored]:
        """The samples of one problem, in order; equal texts are scored once, truncated ones not at all."""
        finished = list(dict.fromkeys(one.text for one in completions if one.finish_reason == "stop"))
        found = dict(zip(finished, self._scorer.score(problem.problem, finished), strict=True))
        return [self._scored(problem, one, found.get(one.text, RawScores((), None))) for one in completions]

    def _scored(self, problem: EvaluationProblem, one: Completion, raw: RawScores) -> Scored:
        finished = one.finish_reason == "stop"
        gold = problem.level in self._gold_levels and problem.answer is not None
        return Scored(
            problem=problem,
            text=one.text,
            finished=finished,
            steps=raw.steps,
            score=aggregate(raw.steps, raw.outcome, self.how) if finished else None,
            correct=self._reaches(problem, one.text, not finished) if gold else None,
        )


def sample_and_score(
    sampler: Sampler, judge: Judge, problems: Sequence[EvaluationProblem], sampling: SamplingPart, seed: int
) -> list[list[Scored]]:
    """The scored samples of every problem, in order."""
    groups = sampler.sample(sampling.requests(problems, seed))
    return [judge.score(problem, group) for problem, group in zip(problems, groups, strict=True)]

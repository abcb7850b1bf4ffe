"""Samples with everything the report needs beside them: the checker's verdict, the verifier's scores, candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.core.aggregation import Aggregation, aggregate
from services.core.answers import extract_answer
from services.core.voting import Candidate
from services.verifier.model import RawScores
from training.judging.scoring import Scorer
from training.lab.checker import Verdict, check
from training.lab.domain import Problem
from training.lab.generation import Sample


class OwnLikelihood(StrEnum):
    """Weights that need no verifier: the generator's probability of its sample, whole or a token's geometric mean."""

    WHOLE = "own likelihood"
    PER_TOKEN = "own likelihood per token"  # noqa: S105 - a name, no secret


@dataclass(frozen=True)
class Judged:
    """One problem with its samples; the three tuples have one entry per sample."""

    problem: Problem
    samples: tuple[Sample, ...]
    verdicts: tuple[Verdict, ...]
    scores: tuple[RawScores, ...]

    def candidates(self, how: Aggregation | OwnLikelihood) -> list[Candidate]:
        """The samples as a vote sees them."""
        return [
            Candidate(
                index=i,
                answer=None if sample.truncated else extract_answer(sample.text),
                score=_score(sample, scores, how),
                truncated=sample.truncated,
            )
            for i, (sample, scores) in enumerate(zip(self.samples, self.scores, strict=True))
        ]

    @property
    def right(self) -> list[bool]:
        """Whether each sample's answer is right."""
        return [verdict.answer_right for verdict in self.verdicts]

    @property
    def all_right(self) -> list[bool]:
        """Whether each sample is right in every step."""
        return [verdict.all_right for verdict in self.verdicts]


def judge_all(problems: Sequence[Problem], groups: Sequence[Sequence[Sample]], scorer: Scorer) -> list[Judged]:
    """Check and score every sample; equal texts of a problem are scored once."""
    judged = []
    for problem, samples in zip(problems, groups, strict=True):
        texts = list(dict.fromkeys(sample.text for sample in samples))
        scores = dict(zip(texts, scorer.score(problem.question, texts), strict=True))
        verdicts = {text: check(problem, text) for text in texts}
        judged.append(
            Judged(
                problem=problem,
                samples=tuple(samples),
                verdicts=tuple(verdicts[sample.text] for sample in samples),
                scores=tuple(scores[sample.text] for sample in samples),
            )
        )
    return judged


def _score(sample: Sample, scores: RawScores, how: Aggregation | OwnLikelihood) -> float | None:
    if isinstance(how, Aggregation):
        return aggregate(scores.steps, scores.outcome, how)
    tokens = sample.tokens if how is OwnLikelihood.PER_TOKEN else 1
    return math.exp(sample.log_likelihood / max(1, tokens))

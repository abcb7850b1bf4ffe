"""How good a verifier is on its own: AUROC, calibration, first errors. Pure: numpy and scipy.

Outcomes: does the score of a sample tell right answers from wrong ones? Steps: does the verifier find the first error
(Zheng et al., 2024, ProcessBench, arXiv 2412.06559)? Expected calibration error after Guo et al. (2017), equal bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from services.core.aggregation import first_error
from services.orchestrator.evaluation.arrays import Bools, Floats, ProblemArrays
from services.orchestrator.evaluation.findings import Bin, ScoreQuality, rounded
from services.orchestrator.evaluation.intervals import estimates

BINS = 10


def auroc(scores: Floats, right: Bools) -> float | None:
    """The chance that a right one scores above a wrong one, ties half; None without either. Both are (n,)."""
    positive = int(np.count_nonzero(right))
    negative = len(right) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(scores)
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def reliability(scores: Floats, right: Bools, bins: int = BINS) -> list[Bin]:
    """Equal bins of [0, 1] that hold samples; the last one is closed."""
    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return [
        Bin(
            low=rounded(place / bins),
            high=rounded((place + 1) / bins),
            samples=int(inside.sum()),
            mean_score=rounded(float(scores[inside].mean())),
            right=rounded(float(right[inside].mean())),
        )
        for place in range(bins)
        if (inside := places == place).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """The mean distance, over samples, of the score from the share of right answers in its bin; None without any."""
    total = sum(found.samples for found in bins)
    if not total:
        return None
    return rounded(sum(found.samples * abs(found.mean_score - found.right) for found in bins) / total)


def score_quality(problems: Sequence[ProblemArrays], score: str, seed: int) -> ScoreQuality:
    """The quality of one aggregation over the scored samples of these problems."""
    known = [~np.isnan(problem.scores[score]) for problem in problems]
    scores = [problem.scores[score][mask] for problem, mask in zip(problems, known, strict=True)]
    right = [problem.right[mask] for problem, mask in zip(problems, known, strict=True)]
    within = [value for pair in zip(scores, right, strict=True) if (value := auroc(*pair)) is not None]
    pooled_scores, pooled_right = np.concatenate(scores), np.concatenate(right)
    pooled, bins = auroc(pooled_scores, pooled_right), reliability(pooled_scores, pooled_right)
    return ScoreQuality(
        score=score,
        samples=len(pooled_right),
        auroc_pooled=None if pooled is None else rounded(pooled),
        auroc_within=estimates({score: np.array(within)}, seed)[score] if within else None,
        problems_with_both=len(within),
        expected_calibration_error=calibration_error(bins),
        bins=bins,
    )


@dataclass(frozen=True, slots=True)
class LabelledSteps:
    """Step scores of a solution (None where the verifier gave none), and the index of its first wrong step, or -1."""

    scores: tuple[float, ...] | None
    label: int

    def found(self, threshold: float) -> bool:
        """Whether the first step under the threshold is the first wrong one; none under it, where none is wrong."""
        if self.scores is None:
            return False
        error = first_error(self.scores, threshold)
        return (-1 if error is None else error) == self.label


@dataclass(frozen=True, slots=True)
class FirstErrors:
    """Accuracy on erroneous and on correct solutions, in [0, 1]; None without any. An unscored one is not found."""

    erroneous: float | None
    correct: float | None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of the two; None where one of them is."""
        if self.erroneous is None or self.correct is None:
            return None
        total = self.erroneous + self.correct
        return 2 * self.erroneous * self.correct / total if total else 0.0


def first_errors(solutions: Sequence[LabelledSteps], threshold: float) -> FirstErrors:
    """How often the first error is located exactly, and how often its absence is."""
    found = {wrong: [s.found(threshold) for s in solutions if (s.label >= 0) is wrong] for wrong in (True, False)}
    shares = {wrong: sum(hits) / len(hits) if hits else None for wrong, hits in found.items()}
    return FirstErrors(erroneous=shares[True], correct=shares[False])


def step_auroc(solutions: Sequence[LabelledSteps]) -> float | None:
    """Right steps against first wrong ones. What follows a first error has no label and is left out."""
    judged = [
        (score, index != solution.label)
        for solution in solutions
        for index, score in enumerate(solution.scores or ())
        if solution.label < 0 or index <= solution.label
    ]
    scores, right = np.array([s for s, _ in judged]), np.array([r for _, r in judged], dtype=np.bool_)
    return auroc(scores, right)


def best_threshold(solutions: Sequence[LabelledSteps]) -> float | None:
    """The threshold of the highest F1 on these solutions, as the paper tunes it on one split; None without both kinds.

    A first error at step L is found by every threshold above its score and not above the least score before it, the
    absence of errors by every one not above the least score. Candidates are the scores, at which alone F1 changes, and
    1; of several the lowest.
    """
    scored = [(np.array(s.scores), s.label) for s in solutions if s.scores]
    erroneous = [(s[label], s[:label].min(initial=1.0)) for s, label in scored if label >= 0]
    correct = np.sort([s.min() for s, label in scored if label < 0])
    if not erroneous or not len(correct):
        return None
    above, upto = np.array(erroneous).T
    able = above < upto
    candidates = np.unique(np.concatenate([*(s for s, _ in scored), [1.0]]))
    hits = np.searchsorted(np.sort(above[able]), candidates) - np.searchsorted(np.sort(upto[able]), candidates)
    a, b = hits / len(erroneous), 1.0 - np.searchsorted(correct, candidates) / len(correct)
    f1 = np.divide(2 * a * b, a + b, out=np.zeros_like(a), where=a + b > 0)
    return float(candidates[f1.argmax()])

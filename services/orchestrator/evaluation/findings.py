"""What a report says: `report.json`. Pure. No NaN: what there is not is null. Nothing tells when or where it was made,
so that equal samples give equal bytes."""

from collections.abc import Collection
from typing import Literal, Self

from services.core.contracts import SolveSampling
from services.core.contracts.base import Wire
from services.core.contracts.evaluation import ServedVerifier
from services.core.voting import Strategy

_DIGITS = 6  # fewer than any interval is wide; what is below is rounding of another machine


def rounded(value: float) -> float:
    """As the report gives it."""
    return round(value, _DIGITS) + 0.0  # no minus zero


class Estimate(Wire):
    """A mean over problems with its 95 % interval; null ends where one problem gives none."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, mean: float, low: float | None = None, high: float | None = None) -> Self:
        """Rounded as the report gives it."""
        return cls(
            mean=rounded(mean),
            low=None if low is None else rounded(low),
            high=None if high is None else rounded(high),
        )


class Point(Wire):
    """A rule with k samples. `oracle_gap` is pass@k minus the accuracy; tokens are a problem's, expected.

    `exact` tells an expectation over all k-subsets from one over seeded draws.
    """

    k: int
    accuracy: Estimate
    oracle_gap: Estimate
    generator_tokens: float
    verifier_tokens: float
    exact: bool


class Curve(Wire):
    """A rule at every k. `strategy` is `pass` for pass@k, the oracle; `score` names what the rule weighs by."""

    strategy: Strategy | Literal["pass"]
    score: str | None
    points: list[Point]

    @property
    def label(self) -> str:
        name = "pass@k (oracle)" if self.strategy == "pass" else str(self.strategy)
        return name if self.score is None else f"{name} ({self.score})"


class Difference(Wire):
    """The accuracy of one rule minus another's at k, paired by problem."""

    rule: str
    minus: str
    k: int
    difference: Estimate


class Bin(Wire):
    """Samples with a score in [low, high): their number, mean score and share of right answers."""

    low: float
    high: float
    samples: int
    mean_score: float
    right: float


class ScoreQuality(Wire):
    """How well a score tells right samples from wrong ones.

    `auroc_within` is the mean over problems with both kinds of the AUROC inside the problem, which is what a vote can
    use; `auroc_pooled` over all samples flatters a score that knows easy problems from hard ones.
    """

    score: str
    samples: int
    auroc_pooled: float | None
    auroc_within: Estimate | None
    problems_with_both: int
    expected_calibration_error: float | None
    bins: list[Bin]


class Group(Wire):
    """The numbers of some of the problems: `all`, `easy`, `hard`, or one level."""

    name: str
    problems: int
    curves: list[Curve]
    differences: list[Difference]
    quality: list[ScoreQuality]

    def of(self, strategies: Collection[Strategy]) -> Self:
        """The same with the curves of these strategies alone, beside pass@k, and the differences between them."""
        curves = [curve for curve in self.curves if curve.strategy == "pass" or curve.strategy in strategies]
        labels = {curve.label for curve in curves}
        differences = [d for d in self.differences if {d.rule, d.minus} <= labels]
        return self.model_copy(update={"curves": curves, "differences": differences})

    def curve(self, strategy: str, score: str | None = None) -> Curve | None:
        """The curve of a rule, if it is there."""
        return next((c for c in self.curves if (c.strategy, c.score) == (strategy, score)), None)


class Report(Wire):
    """`report.json`.

    Of `problems` in the data set, `complete` have all `n` samples and `graded` of these a gold answer: the report is
    about those. `unanswered` and `unscored` samples of theirs have no vote, or none that needs a score.
    """

    version: int = 1
    dataset: str
    generator: str
    verifier: ServedVerifier | None
    n: int
    seed: int
    sampling: SolveSampling
    problems: int
    complete: int
    graded: int
    samples: int
    unanswered: int
    unscored: int
    draws: int
    report_seed: int
    confidence: float
    resamples: int
    groups: list[Group]

    def of(self, strategies: Collection[Strategy]) -> Self:
        """The report on these strategies alone."""
        return self.model_copy(update={"groups": [group.of(strategies) for group in self.groups]})

    def group(self, name: str) -> Group | None:
        """The group of that name, if it is there."""
        return next((group for group in self.groups if group.name == name), None)

"""The samples of a problem as arrays: what estimators and quality read. Pure: numpy.

Index i of every array is sample i. A class of equal answers is right as its most frequent spelling is (ties to the
earliest), which is the spelling that the service would answer; so a sample is right as its class is.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.aggregation import Aggregation
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.evaluation.store import SampledProblem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Weights that need no verifier: the generator's own probability of its sample, whole or a token's geometric mean.
LIKELIHOOD = "likelihood"
LIKELIHOOD_PER_TOKEN = "likelihood_per_token"  # noqa: S105 - a name, no secret
OWN_LIKELIHOODS = (LIKELIHOOD, LIKELIHOOD_PER_TOKEN)


@dataclass(frozen=True, slots=True, eq=False)
class ProblemArrays:
    """The N samples of one problem.

    `classes` (N,) names the class of the answer, -1 where there is none and hence no vote; `right` (N,) is False
    there. `scores` gives, by name, (N,) weights in [0, 1], NaN where a sample has none. `texts` (N,) names equal
    texts. `tokens` (N,) were sampled; `verifier_tokens` (N,) is the length of the verifier's input.
    """

    id: str
    level: int | None
    classes: Ints
    right: Bools
    scores: Mapping[str, Floats]
    texts: Ints
    tokens: Ints
    verifier_tokens: Ints

    @property
    def n(self) -> int:
        return len(self.classes)


def arrays_of(sampled: SampledProblem, aggregations: Sequence[Aggregation]) -> ProblemArrays:
    """The arrays of a problem whose samples were compared with a gold answer."""
    samples = sampled.samples
    names = [None if s.answer is None else s.key or s.answer for s in samples]
    classes = _numbered(names)
    scores = {how.value: _floats([sample.score(how) for sample in samples]) for how in aggregations}
    if all(sample.logprob is not None for sample in samples):
        scores |= _own_likelihoods(samples)
    return ProblemArrays(
        id=sampled.problem.id,
        level=sampled.problem.level,
        classes=classes,
        right=_right(samples, classes),
        scores=scores,
        texts=_numbered([sample.text for sample in samples]),
        tokens=np.array([sample.tokens for sample in samples], dtype=np.int64),
        verifier_tokens=np.array([sample.verifier_tokens for sample in samples], dtype=np.int64),
    )


def _numbered(names: Sequence[str | None]) -> Ints:
    """Equal names to equal numbers, in order of appearance; None to -1."""
    numbers: dict[str, int] = {}
    found = [-1 if name is None else numbers.setdefault(name, len(numbers)) for name in names]
    return np.array(found, dtype=np.int64)


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _right(samples: Sequence[ScoredSample], classes: Ints) -> Bools:
    members: dict[int, list[ScoredSample]] = defaultdict(list)
    for sample, number in zip(samples, classes.tolist(), strict=True):
        members[number].append(sample)
    verdicts = {number: number >= 0 and _class_is_right(group) for number, group in members.items()}
    return np.array([verdicts[number] for number in classes.tolist()], dtype=np.bool_)


def _class_is_right(group: Sequence[ScoredSample]) -> bool:
    # Counter keeps first-seen order among equals: ties go to the earliest.
    spelling = Counter(sample.answer for sample in group).most_common(1)[0][0]
    return bool(next(sample.correct for sample in group if sample.answer == spelling))


def _own_likelihoods(samples: Sequence[ScoredSample]) -> dict[str, Floats]:
    logprobs = _floats([sample.logprob for sample in samples])
    lengths = np.array([max(1, sample.tokens) for sample in samples], dtype=np.float64)
    # A vote does not change when all weights are scaled alike, and a long text's probability is no float.
    return {
        LIKELIHOOD: np.exp(logprobs - logprobs.max(initial=-math.inf)),
        LIKELIHOOD_PER_TOKEN: np.exp(np.minimum(logprobs / lengths, 0.0)),
    }

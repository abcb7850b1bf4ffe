"""What each rule answers with the first k samples, as columns `pred_RULE@k`. Pure.

These are for tools that read such columns; the report's accuracies are expectations over all k-subsets instead.
"""

from collections.abc import Sequence

from services.core.contracts import Manifest
from services.core.voting import Candidate, Strategy, select
from services.orchestrator.evaluation.samples import ScoredSample


def sizes_up_to(n: int) -> list[int]:
    """1, 2, 4, ... and n itself."""
    powers = [1 << i for i in range(n.bit_length()) if 1 << i < n]
    return [*powers, n]


def prediction_names(manifest: Manifest) -> dict[str, tuple[Strategy, int]]:
    """Column name to rule and k. Without a verifier there is no rule but majority."""
    rules = list(Strategy) if manifest.verifier is not None else [Strategy.MAJORITY]
    return {f"pred_{rule.value}@{k}": (rule, k) for rule in rules for k in sizes_up_to(manifest.plan.n)}


def prediction_columns(samples: Sequence[ScoredSample], manifest: Manifest) -> dict[str, str | None]:
    """The answers of every rule and k, under the verifier's default aggregation."""
    keys = {sample.answer: sample.key for sample in samples if sample.answer is not None}
    candidates = {rule: [_candidate(*pair, rule, manifest) for pair in enumerate(samples)] for rule in Strategy}
    return {
        name: select(candidates[rule][:k], rule, lambda answer: keys[answer] or answer).answer
        for name, (rule, k) in prediction_names(manifest).items()
    }


def _candidate(index: int, sample: ScoredSample, rule: Strategy, manifest: Manifest) -> Candidate:
    # As in the service, majority asks for no score, so that none breaks its ties.
    scored = rule.needs_scores and manifest.verifier is not None
    score = sample.score(manifest.verifier.default_aggregation) if scored and manifest.verifier else None
    return Candidate(index, sample.answer, score, sample.truncated)

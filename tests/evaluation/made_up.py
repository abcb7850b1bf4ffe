"""Samples without a model: for tests of estimators and of the report."""

import itertools
import random
from collections.abc import Sequence
from statistics import mean

from services.core.aggregation import Aggregation
from services.core.contracts import EvaluationPlan, EvaluationProblem, Manifest, ServedVerifier
from services.core.voting import Candidate, Strategy, select
from services.orchestrator.evaluation.arrays import ProblemArrays, arrays_of
from services.orchestrator.evaluation.estimators import Rule
from services.orchestrator.evaluation.items import digest_of, items_of
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.evaluation.store import ResultsStore, SampledProblem

VERIFIER = ServedVerifier(id="made-up-verifier", kind="oprm", default_aggregation=Aggregation.MIN)


def sample(
    answer: str | None,
    right: bool = False,
    score: float | None = None,
    *,
    outcome: float | None = None,
    key: str | None = None,
    text: str = "x",
    tokens: int = 7,
    logprob: float | None = None,
) -> ScoredSample:
    """A sample of one step; classes are named by the answer unless `key` does."""
    return ScoredSample(
        text=text,
        answer=answer,
        key=key if key is not None else answer,
        correct=right and answer is not None,
        finish_reason="stop" if answer is not None else "length",
        tokens=tokens,
        logprob=logprob,
        seed=1,
        scores=() if score is None else (score,),
        outcome=outcome,
        verifier_tokens=0 if score is None else 2 * tokens,
        error=None,
    )


def arrays(samples: Sequence[ScoredSample], name: str = "p", level: int | None = None) -> ProblemArrays:
    """The arrays of one problem."""
    problem = EvaluationProblem(id=name, problem="?", answer="right", level=level)
    return arrays_of(SampledProblem(problem, tuple(samples)), list(Aggregation))


def brute_force(samples: Sequence[ScoredSample], rule: Rule, k: int) -> float:
    """The share of k-subsets in which the service's own vote is right."""
    subsets = itertools.combinations(range(len(samples)), k)
    return mean(voted_right(samples, rule, subset) for subset in subsets)


def voted_right(samples: Sequence[ScoredSample], rule: Rule, subset: Sequence[int]) -> bool:
    """Whether `services.core.voting.select` answers right with these samples."""
    keys = {s.answer: s.key or s.answer for s in samples if s.answer is not None}
    right = {s.answer: s.correct for s in samples if s.answer is not None}
    chosen = [Candidate(i, samples[i].answer, _score(samples[i], rule)) for i in subset]
    answer = select(chosen, rule.strategy, lambda given: keys[given]).answer
    return answer is not None and bool(right[answer])


def _score(given: ScoredSample, rule: Rule) -> float | None:
    return None if rule.strategy is Strategy.MAJORITY else given.score(Aggregation(rule.score or ""))


def made_up_store(
    url: str, levels: Sequence[int | None], n: int = 8, *, verifier: ServedVerifier | None = VERIFIER, seed: int = 0
) -> ResultsStore:
    """A store with the parts of a problem at each level; higher levels are answered worse."""
    rng = random.Random(seed)
    problems = [
        EvaluationProblem(id=f"p{i}", problem=f"What is {i}?", answer="1", level=level)
        for i, level in enumerate(levels)
    ]
    plan = EvaluationPlan(n=n, chunk=4)
    manifest = Manifest(
        dataset="made up",
        digest=digest_of(problems),
        problems=len(problems),
        plan=plan,
        generator="made-up-generator",
        verifier=verifier,
    )
    store = ResultsStore(url)
    store.begin(manifest, problems)
    for item in items_of(plan, len(problems)):
        share = 0.9 - 0.15 * (levels[item.ordinal] or 3)
        store.write_part(item, [_drawn(rng, share, verifier is not None) for _ in item.indices])
    return store


def _drawn(rng: random.Random, share: float, scored: bool) -> ScoredSample:
    right = rng.random() < share
    answer = None if rng.random() < 0.1 else "1" if right else str(rng.randint(2, 5))
    score, outcome = (rng.betavariate(4, 2) if right else rng.betavariate(2, 3) for _ in range(2))
    return sample(
        answer,
        right,
        score if scored else None,
        outcome=outcome if scored else None,
        text=str(rng.random()),
        tokens=rng.randint(20, 40),
        logprob=-20 * rng.random(),
    )

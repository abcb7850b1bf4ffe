"""Samples that an evaluation keeps, scored by another verifier: same texts, new scores, nothing sampled."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.core.aggregation import Aggregation
from services.core.contracts import EvaluationPlan, EvaluationProblem, GenerateRequest, ServedVerifier
from services.core.errors import InvalidRequest, NotFound
from services.orchestrator.evaluation.evaluating import Evaluation
from services.orchestrator.evaluation.items import digest_of, items_of
from services.orchestrator.evaluation.running import ItemRunner
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.evaluation.store import ResultsStore
from services.orchestrator.evaluation.stored import StoredSamples
from tests.evaluation.made_up import made_up_store
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, solution

# The same text twice, under two ids: each has samples of its own.
PROBLEMS = [EvaluationProblem(id=f"p{i}", problem=f"problem {i % 2}", answer=str(i)) for i in range(3)]
PLAN = EvaluationPlan(n=6, chunk=4, seed=3)
TEXTS = [solution("0"), solution("1", "a", "b"), solution("2.0"), "no answer", solution("3"), solution("1")]


async def evaluated(url: Path, texts: Callable[[int], list[str]], first: StoredSamples | None = None) -> ResultsStore:
    """A finished evaluation, of fresh samples (`texts` by problem) or of those of `first`."""
    store = ResultsStore(str(url))
    score = (lambda step: len(step) / 100) if first is None else (lambda step: 1 - len(step) / 100)
    name = "old" if first is None else "new"
    manifest = (
        made_up_store(str(url) + "-unused", [1])
        .manifest()
        .model_copy(
            update={
                "plan": PLAN,
                "digest": digest_of(PROBLEMS),
                "problems": len(PROBLEMS),
                "generator": "fake",
                "verifier": ServedVerifier(id=name, kind="prm", default_aggregation=Aggregation.MIN),
            }
        )
    )
    if first is not None:
        runner = ItemRunner(first, FakeVerifier(score), InlineGrader(), PLAN)
        await Evaluation(runner, store, PROBLEMS, 2).run(manifest, lambda _: None, lambda _: None)
        return store
    store.begin(manifest, PROBLEMS)
    for item in items_of(PLAN, len(PROBLEMS)):
        generator = FakeGenerator(texts(item.ordinal), finish_reasons={3: "length"})
        runner = ItemRunner(generator, FakeVerifier(score), InlineGrader(), PLAN)
        store.write_part(item, await runner.run(item, PROBLEMS[item.ordinal]))
    store.finish()
    return store


def without_scores(sample: ScoredSample) -> ScoredSample:
    return replace(sample, scores=(), outcome=None)


async def test_another_verifier_scores_the_very_samples_of_the_first(tmp_path: Path) -> None:
    old = await evaluated(tmp_path / "old", lambda ordinal: TEXTS[ordinal:] + TEXTS[:ordinal])
    new = await evaluated(tmp_path / "new", lambda _: [], StoredSamples(old))
    before = [sample for problem in old.read() for sample in problem.samples]
    after = [sample for problem in new.read() for sample in problem.samples]
    assert len(after) == 18
    assert [without_scores(s) for s in after] == [without_scores(s) for s in before]
    pairs = [
        (a, b) for one, other in zip(before, after, strict=True) for a, b in zip(one.scores, other.scores, strict=True)
    ]
    assert pairs
    assert all(a + b == pytest.approx(1.0) for a, b in pairs)
    assert [p.samples[0].text for p in new.read()] == TEXTS[:3]  # also where the problem's text is another's


async def test_what_was_not_sampled_is_refused(tmp_path: Path) -> None:
    stored = StoredSamples(await evaluated(tmp_path / "old", lambda _: TEXTS))
    for request in (GenerateRequest(problem="problem 0"), GenerateRequest(problem="problem 0", n=1, indices=[6])):
        with pytest.raises(InvalidRequest) as refused:
            await anext(stored.generate(request))
        assert refused.value.code == "not_kept"


def test_an_evaluation_that_is_not_there_or_not_finished_gives_no_samples(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        StoredSamples(ResultsStore(str(tmp_path / "none")))
    with pytest.raises(InvalidRequest, match="not finished"):
        StoredSamples(made_up_store(str(tmp_path / "parts"), [1, 4]))

"""Items of work, and a whole evaluation of them: whatever order, whatever was lost, the same table."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.core.aggregation import Aggregation
from services.core.contracts import (
    Completion,
    EvaluationPlan,
    EvaluationProblem,
    GenerateDone,
    GenerateRequest,
    ItemError,
    Manifest,
    ServedVerifier,
    SolveSampling,
)
from services.core.errors import ContextLengthExceeded, E2HError, InvalidRequest, Overloaded, UpstreamContract
from services.orchestrator.evaluation.evaluating import Evaluation
from services.orchestrator.evaluation.items import Item, digest_of, problem_seed
from services.orchestrator.evaluation.running import ItemRunner
from services.orchestrator.evaluation.store import ResultsStore
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, solution

PROBLEMS = [EvaluationProblem(id=f"p{i}", problem=f"problem {i}", answer=str(i)) for i in range(4)]
PLAN = EvaluationPlan(n=6, chunk=4, seed=3)
TEXTS = [solution("0"), solution("1", "a", "b"), solution("2.0"), "no answer", solution("3"), solution("1")]
ALL = [Item(o, first, count) for o in range(4) for first, count in ((0, 4), (4, 2))]


@dataclass
class Troubled(FakeGenerator):
    """Fails the first calls."""

    troubles: list[E2HError] = field(default_factory=list)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        if self.troubles:
            raise self.troubles.pop()
        async for event in super().generate(request):
            yield event


def runner(generator: FakeGenerator | None = None, verifier: FakeVerifier | None = None) -> ItemRunner:
    generator = generator or FakeGenerator(TEXTS, finish_reasons={3: "length"})
    return ItemRunner(generator, verifier or FakeVerifier(lambda step: len(step) / 100), InlineGrader(), PLAN)


def manifest() -> Manifest:
    verifier = ServedVerifier(id="v", kind="prm", default_aggregation=Aggregation.MIN)
    return Manifest(
        dataset="d", digest=digest_of(PROBLEMS), problems=len(PROBLEMS), plan=PLAN, generator="g", verifier=verifier
    )


async def evaluate(
    store: ResultsStore, generator: FakeGenerator, concurrency: int = 3
) -> tuple[list[Item], list[Item]]:
    already: list[Item] = []
    done: list[Item] = []
    evaluation = Evaluation(runner(generator), store, PROBLEMS, concurrency)
    await evaluation.run(manifest(), already.append, done.append)
    return already, done


async def test_an_item_holds_its_indices_with_scores_classes_and_grades() -> None:
    generator, verifier = FakeGenerator(TEXTS, finish_reasons={3: "length"}), FakeVerifier(lambda step: len(step) / 100)
    samples = await runner(generator, verifier).run(Item(1, 1, 5), PROBLEMS[1])
    assert [s.text for s in samples] == TEXTS[1:]
    assert [s.answer for s in samples] == ["1", "2.0", None, "3", "1"]
    assert [s.correct for s in samples] == [True, False, False, False, True]
    assert samples[0].scores == (0.01, 0.14)  # "a", and "b" with the answer under it
    assert samples[0].key == samples[4].key != samples[1].key
    assert samples[2].truncated
    (request,) = generator.requests
    assert list(request.sample_indices) == [1, 2, 3, 4, 5]
    assert request.sampling.seed == problem_seed(3, "p1") != problem_seed(3, "p2")
    assert len(verifier.requests) == 1


async def test_equal_texts_are_scored_once_and_share_the_score() -> None:
    verifier = FakeVerifier(lambda step: 0.5)
    samples = await runner(FakeGenerator([solution("1")]), verifier).run(Item(0, 0, 4), PROBLEMS[0])
    assert len(verifier.requests[0].solutions) == 1
    assert {s.scores for s in samples} == {(0.5,)}


async def test_a_solution_that_cannot_be_scored_carries_its_error_alone() -> None:
    def too_long(text: str) -> ItemError | None:
        return ItemError(code="context_length_exceeded", message="too long") if text.startswith("a") else None

    samples = await runner(verifier=FakeVerifier(error_of=too_long)).run(Item(0, 0, 2), PROBLEMS[0])
    assert [(s.error, s.scores) for s in samples] == [(None, (0.5,)), ("context_length_exceeded", ())]
    assert samples[1].score(Aggregation.MIN) is None


async def test_a_problem_that_the_generator_refuses_is_wrong_and_holds_up_no_other(tmp_path: Path) -> None:
    generator = Troubled(TEXTS, troubles=[ContextLengthExceeded("600 tokens; the limit is 512")])
    store = ResultsStore(str(tmp_path))
    await evaluate(store, generator, concurrency=1)
    first, *others = list(store.read())
    assert {s.error for s in first.samples[:4]} == {"context_length_exceeded"}
    assert [s.correct for s in first.samples[:4]] == [False] * 4
    assert all(s.error is None for problem in others for s in problem.samples)


async def test_without_a_verifier_samples_have_no_scores() -> None:
    alone = ItemRunner(FakeGenerator(TEXTS), None, InlineGrader(), PLAN)
    samples = await alone.run(Item(0, 0, 2), PROBLEMS[0])
    assert [(s.scores, s.outcome, s.error) for s in samples] == [((), None, None)] * 2


async def test_a_generator_that_gives_other_samples_breaks_its_contract() -> None:
    with pytest.raises(UpstreamContract):
        await runner(FakeGenerator(TEXTS, order=[0, 1])).run(Item(0, 2, 2), PROBLEMS[0])


async def test_what_was_kept_is_not_made_again_and_the_table_is_the_same(tmp_path: Path) -> None:
    whole = ResultsStore(str(tmp_path / "whole"))
    await evaluate(whole, FakeGenerator(TEXTS))
    broken = FakeGenerator(TEXTS)
    cut = ResultsStore(str(tmp_path / "cut"))
    with pytest.raises(UpstreamContract):  # ends in the middle, as a kill would
        await evaluate(cut, Dying(TEXTS, alive=5), concurrency=2)
    kept = cut.parts()  # a part that was being written may still come
    already, done = await evaluate(cut, broken, concurrency=4)
    assert kept <= {item.name for item in already}
    assert 1 <= len(already) < len(ALL)
    assert sorted([*already, *done]) == ALL
    assert len(broken.requests) == len(done)
    assert (tmp_path / "cut/samples.parquet").read_bytes() == (tmp_path / "whole/samples.parquet").read_bytes()


async def test_a_finished_evaluation_asks_nothing_again(tmp_path: Path) -> None:
    store = ResultsStore(str(tmp_path))
    await evaluate(store, FakeGenerator(TEXTS))
    again = FakeGenerator(TEXTS)
    already, done = await evaluate(store, again)
    assert (already, done, again.requests) == (ALL, [], [])


async def test_a_service_that_is_busy_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stamina

    generator = Troubled(TEXTS, troubles=[Overloaded("busy"), Overloaded("busy")])
    stamina.set_testing(True, attempts=8)  # the same number of tries, without the waits
    try:
        _, done = await evaluate(ResultsStore(str(tmp_path)), generator)
    finally:
        stamina.set_testing(False)
    assert sorted(done) == ALL


async def test_the_samples_of_another_plan_are_refused_before_any_work(tmp_path: Path) -> None:
    store = ResultsStore(str(tmp_path))
    await evaluate(store, FakeGenerator(TEXTS))
    other = manifest().model_copy(update={"generator": "another"})
    generator = FakeGenerator(TEXTS)
    with pytest.raises(InvalidRequest):
        await Evaluation(runner(generator), store, PROBLEMS, 1).run(other, print, print)
    assert generator.requests == []


async def test_cancelling_stops_what_runs_at_the_engine(tmp_path: Path) -> None:
    generator = Held(TEXTS, holds={5: asyncio.Event()})
    working = asyncio.create_task(evaluate(ResultsStore(str(tmp_path)), generator, concurrency=2))
    async with asyncio.timeout(30):
        await generator.held.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert generator.cancelled >= 1


def test_n_copies_of_the_greedy_sample_are_no_plan() -> None:
    with pytest.raises(ValueError, match="draws the same sample"):
        EvaluationPlan(n=2, sampling=SolveSampling(temperature=0.0))


@dataclass
class Held(FakeGenerator):
    """Tells when a second item of a problem is being sampled."""

    held: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        async for event in super().generate(request):
            yield event
            if isinstance(event, Completion) and event.index == 4:
                self.held.set()


@dataclass
class Dying(FakeGenerator):
    """Breaks off after so many calls."""

    alive: int = 0

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        if len(self.requests) >= self.alive:
            raise UpstreamContract("broken")
        async for event in super().generate(request):
            yield event

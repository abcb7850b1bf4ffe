"""The device's queue with a fake model: sharing, order, failures that stay with their callers, leaving, closing."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from services.core.errors import DeadlineExceeded, InternalError, ItemTooLarge, NotReady, Overloaded
from services.runtime import context
from services.verifier.batcher import Batcher, Scored
from services.verifier.engine import DeviceOutOfMemory
from services.verifier.families.base import Encoded
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RawScores, RewardModel
from tests.serving import eventually

Answer = Callable[[Sequence[Encoded]], list[RawScores]]


def item(name: int, length: int = 10) -> Encoded:
    """A solution whose score is its name in hundredths."""
    return Encoded(ids=(name, *[0] * (length - 1)), step_rows=(0,), outcome_row=None)


def by_name(batch: Sequence[Encoded]) -> list[RawScores]:
    return [RawScores((encoded.ids[0] / 100,), None, len(encoded.ids)) for encoded in batch]


@dataclass
class FakeModel:
    """Answers batches with `answer` in the device's thread, once `open` is set."""

    answer: Answer = by_name
    batches: list[list[int]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    cached_bytes: int = 0
    forgotten: int = 0

    def forget(self) -> None:
        self.forgotten += 1

    def score(self, batch: Sequence[Encoded]) -> list[RawScores]:
        self.batches.append([encoded.ids[0] for encoded in batch])
        self.open.wait(timeout=10)
        return self.answer(batch)


@contextlib.asynccontextmanager
async def running(
    model: FakeModel, *, budget: int = 10_000, queue: int = 10_000, registry: CollectorRegistry | None = None
) -> AsyncIterator[Batcher]:
    batcher = Batcher(
        cast(RewardModel, model),
        VerifierMetrics(registry or CollectorRegistry()),
        max_batch_tokens=budget,
        max_queue_tokens=queue,
        gather_s=0.005,
    )
    batcher.start()
    try:
        yield batcher
    finally:
        model.open.set()
        await batcher.close()


def open_model(answer: Answer = by_name) -> FakeModel:
    model = FakeModel(answer)
    model.open.set()
    return model


def scores(answers: Sequence[Scored | ItemTooLarge]) -> list[Scored]:
    """The answers, none of which may be an error."""
    assert not [answer for answer in answers if isinstance(answer, ItemTooLarge)]
    return [answer for answer in answers if isinstance(answer, Scored)]


def names(answers: Sequence[Scored | ItemTooLarge]) -> list[int]:
    return [round(s.raw.steps[0] * 100) for s in scores(answers)]


async def occupied(batcher: Batcher, model: FakeModel) -> "asyncio.Task[list[Scored | ItemTooLarge]]":
    """A caller whose batch holds the device."""
    first = asyncio.create_task(batcher.score([item(1)]))
    assert await eventually(lambda: len(model.batches) == 1)
    return first


async def queued(batcher: Batcher, *items: Encoded) -> "asyncio.Task[list[Scored | ItemTooLarge]]":
    """A caller who waits in the queue."""
    caller = asyncio.create_task(batcher.score(items))
    await asyncio.sleep(0)
    return caller


async def test_concurrent_callers_share_a_forward_pass() -> None:
    model = open_model()
    async with running(model) as batcher:
        answers = await asyncio.gather(*(batcher.score([item(name)]) for name in (3, 1, 2)))
    assert [names(scored) for scored in answers] == [[3], [1], [2]]
    assert model.batches == [[3, 1, 2]]
    assert {s.batch_solutions for scored in answers for s in scores(scored)} == {3}


async def test_callers_who_come_while_the_device_is_busy_share_the_next_pass() -> None:
    model = FakeModel()
    async with running(model) as batcher:
        first = await occupied(batcher, model)
        others = [await queued(batcher, item(name)) for name in (2, 3, 4)]
        model.open.set()
        await asyncio.gather(first, *others)
    assert model.batches == [[1], [2, 3, 4]]


@pytest.mark.parametrize("budget", [1, 25, 60, 10_000])
async def test_scores_come_in_the_order_of_the_question_however_batches_are_formed(budget: int) -> None:
    model = open_model()
    lengths = [40, 5, 20, 5, 60, 10]
    async with running(model, budget=budget) as batcher:
        scored = await batcher.score([item(name, length) for name, length in enumerate(lengths)])
    assert names(scored) == list(range(6))
    assert sorted(name for batch in model.batches for name in batch) == list(range(6))


async def test_nothing_to_score_needs_no_device() -> None:
    model = open_model()
    async with running(model) as batcher:
        assert await batcher.score([]) == []
        assert names(await batcher.score([item(5)])) == [5]
    assert model.batches == [[5]]


async def test_a_failing_batch_fails_its_callers_and_the_loop_goes_on() -> None:
    def answer(batch: Sequence[Encoded]) -> list[RawScores]:
        if any(encoded.ids[0] == 13 for encoded in batch):
            raise RuntimeError("device error with secrets in its text")
        return by_name(batch)

    async with running(open_model(answer)) as batcher:
        failed = await asyncio.gather(batcher.score([item(13)]), batcher.score([item(1)]), return_exceptions=True)
        assert [type(error) for error in failed] == [InternalError, InternalError]
        assert "secrets" not in str(failed[0])
        assert names(await batcher.score([item(2)])) == [2]
        assert batcher.alive


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda batch: by_name(batch)[1:], id="one too few"),
        pytest.param(lambda batch: [*by_name(batch), RawScores((0.5,), None)], id="one too many"),
        pytest.param(lambda batch: [], id="none"),
    ],
)
async def test_a_wrong_number_of_results_answers_nobody_with_anothers_score(answer: Answer) -> None:
    model = open_model(answer)
    async with running(model) as batcher:
        failed = await asyncio.gather(*(batcher.score([item(n)]) for n in (1, 2, 3)), return_exceptions=True)
        assert [type(error) for error in failed] == [InternalError] * 3
        model.answer = by_name
        assert names(await batcher.score([item(4)])) == [4]


async def test_a_caller_who_left_is_dropped_from_the_queue() -> None:
    model, registry = FakeModel(), CollectorRegistry()
    async with running(model, registry=registry) as batcher:
        first = await occupied(batcher, model)
        leaving, staying = await queued(batcher, item(2)), await queued(batcher, item(3))
        leaving.cancel()
        model.open.set()
        await asyncio.gather(first, staying)
    assert model.batches == [[1], [3]]
    assert registry.get_sample_value("e2h_verifier_queue_tokens") == 0


async def test_a_caller_who_leaves_a_running_batch_harms_no_batch_mate() -> None:
    model = FakeModel()
    async with running(model) as batcher:
        leaving, staying = await queued(batcher, item(1)), await queued(batcher, item(2))
        assert await eventually(lambda: model.batches == [[1, 2]])
        leaving.cancel()
        model.open.set()
        assert names(await staying) == [2]
        assert batcher.alive


async def test_a_full_queue_refuses_with_a_predicted_wait() -> None:
    model = FakeModel()
    async with running(model, queue=100) as batcher:
        first, waiting = await occupied(batcher, model), await queued(batcher, item(2, 90))
        with pytest.raises(Overloaded) as refused:
            await batcher.score([item(3, 11)])
        assert refused.value.retry_after_s > 0
        fitting = await queued(batcher, item(4, 10))
        model.open.set()
        await asyncio.gather(first, waiting, fitting)


async def test_an_empty_queue_takes_a_request_larger_than_itself() -> None:
    async with running(open_model(), queue=100) as batcher:
        assert names(await batcher.score([item(1, 90), item(2, 90)])) == [1, 2]


async def test_the_queue_has_room_again_when_its_batch_has_gone() -> None:
    model, registry = open_model(), CollectorRegistry()
    async with running(model, queue=100, registry=registry) as batcher:
        for name in range(5):
            assert names(await batcher.score([item(name, 90)])) == [name]
    assert registry.get_sample_value("e2h_verifier_queue_tokens") == 0


async def test_before_it_starts_it_is_not_ready() -> None:
    batcher = Batcher(
        cast(RewardModel, FakeModel()),
        VerifierMetrics(CollectorRegistry()),
        max_batch_tokens=100,
        max_queue_tokens=100,
        gather_s=0.0,
    )
    assert not batcher.alive
    with pytest.raises(NotReady):
        await batcher.score([item(1)])
    await batcher.close()


async def test_after_it_closed_it_is_not_ready() -> None:
    async with running(open_model()) as batcher:
        pass
    assert not batcher.alive
    with pytest.raises(NotReady):
        await batcher.score([item(1)])


async def test_closing_answers_everyone_who_waits_and_lets_the_running_batch_end() -> None:
    model = FakeModel()
    async with running(model) as batcher:
        first, second = await occupied(batcher, model), await queued(batcher, item(2))
        closing = asyncio.create_task(batcher.close())
        asyncio.get_running_loop().call_later(0.1, model.open.set)
        threading.Timer(0.2, model.open.set).start()  # should closing block the event loop
        outcomes = await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), timeout=2)
        await closing
    assert isinstance(outcomes[1], NotReady)
    assert isinstance(outcomes[0], NotReady) or names(cast(list[Scored | ItemTooLarge], outcomes[0])) == [1]


async def test_closing_does_not_block_the_event_loop_while_a_batch_runs() -> None:
    model = FakeModel()
    async with running(model) as batcher:
        first = await occupied(batcher, model)
        rescue = threading.Timer(1.0, model.open.set)
        rescue.start()
        closing = asyncio.create_task(batcher.close())
        for _ in range(3):
            await asyncio.sleep(0.01)
        blocked = model.open.is_set()
        model.open.set()
        await closing
        rescue.cancel()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert not blocked


async def test_times_and_sizes_are_told_with_the_scores() -> None:
    async with running(open_model()) as batcher:
        scored = scores(await batcher.score([item(1, 10), item(2, 30)]))
    assert {(s.batch_tokens, s.batch_solutions) for s in scored} == {(40, 2)}
    assert all(s.queue_s >= 0 and s.inference_s >= 0 for s in scored)


def fits(tokens: int) -> Answer:
    """A device that holds this many tokens."""

    def answer(batch: Sequence[Encoded]) -> list[RawScores]:
        if sum(len(encoded.ids) for encoded in batch) > tokens:
            raise DeviceOutOfMemory
        return by_name(batch)

    return answer


async def test_a_batch_that_the_device_cannot_hold_is_halved_until_it_can() -> None:
    model, registry = open_model(fits(200)), CollectorRegistry()
    async with running(model, registry=registry) as batcher:
        answers = await batcher.score([item(name, 90) for name in range(1, 9)])
        assert names(answers) == list(range(1, 9))
        assert batcher.alive
        lowered = registry.get_sample_value("e2h_verifier_max_batch_tokens")
        assert lowered == 180
        model.batches.clear()
        assert names(await batcher.score([item(name, 90) for name in range(1, 5)])) == [1, 2, 3, 4]
    assert model.batches == [[1, 2], [3, 4]]
    assert model.forgotten > 0
    assert registry.get_sample_value("e2h_verifier_out_of_memory_total") == 3


async def test_the_bound_falls_by_distinct_tokens_where_solutions_share_a_prompt() -> None:
    def answer(batch: Sequence[Encoded]) -> list[RawScores]:
        if len({e.ids[:end] for e in batch for end in range(1, len(e.ids) + 1)}) > 150:
            raise DeviceOutOfMemory
        return by_name(batch)

    registry = CollectorRegistry()
    sharing = [Encoded((1, *[0] * 100, *[name] * 20), (0,), None) for name in range(2, 8)]
    async with running(open_model(answer), registry=registry) as batcher:
        assert len(scores(await batcher.score(sharing))) == 6
    assert registry.get_sample_value("e2h_verifier_max_batch_tokens") == 80


async def test_who_waits_behind_a_full_batch_and_leaves_or_is_late_is_not_run() -> None:
    model = FakeModel()

    async def hurried(batcher: Batcher) -> "asyncio.Task[list[Scored | ItemTooLarge]]":
        context.set_budget(0.05)
        return await queued(batcher, item(3))

    async with running(model, budget=30) as batcher:
        first = await occupied(batcher, model)
        leaving = await queued(batcher, item(2))
        late = await asyncio.create_task(hurried(batcher))
        staying = await queued(batcher, item(4))
        await asyncio.sleep(0.1)  # all three stand behind the running batch now
        leaving.cancel()
        model.open.set()
        outcomes = await asyncio.gather(first, late, staying, return_exceptions=True)
    assert model.batches == [[1], [4]]
    assert isinstance(outcomes[1], DeadlineExceeded)


async def test_interactive_callers_wait_for_one_background_batch_at_most() -> None:
    model = FakeModel()

    async def in_background(batcher: Batcher, name: int) -> "asyncio.Task[list[Scored | ItemTooLarge]]":
        context.set_priority("batch")
        return await queued(batcher, item(name))

    async with running(model, budget=20) as batcher:
        first = await occupied(batcher, model)
        background = [await asyncio.create_task(in_background(batcher, name)) for name in range(50, 58)]
        await asyncio.sleep(0.02)
        now = await queued(batcher, item(2))
        model.open.set()
        await asyncio.gather(first, now, *background)
    assert model.batches[:2] == [[1], [2]]


async def test_a_device_that_fails_every_batch_shows_it() -> None:
    def broken(batch: Sequence[Encoded]) -> list[RawScores]:
        raise RuntimeError("illegal memory access")

    model = open_model(broken)
    async with running(model) as batcher:
        for _ in range(3):
            assert not batcher.failing
            with pytest.raises(InternalError):
                await batcher.score([item(1)])
        assert batcher.failing
        model.answer = by_name
        await batcher.score([item(1)])
        assert not batcher.failing


async def test_only_the_solution_that_fails_alone_errs() -> None:
    model = open_model(fits(200))
    async with running(model) as batcher:
        small, large, other = await batcher.score([item(1, 90), item(2, 300), item(3, 90)])
    assert names([small, other]) == [1, 3]
    assert isinstance(large, ItemTooLarge)
    assert large.code == "item_too_large_for_device"


async def test_interactive_callers_overtake_background_ones() -> None:
    model = FakeModel()

    async def in_background(batcher: Batcher) -> "asyncio.Task[list[Scored | ItemTooLarge]]":
        context.set_priority("batch")
        return await queued(batcher, item(5))

    async with running(model) as batcher:
        first = await occupied(batcher, model)
        later = await asyncio.create_task(in_background(batcher))
        now = await queued(batcher, item(2))
        model.open.set()
        await asyncio.gather(first, later, now)
    assert model.batches == [[1], [2], [5]]


async def test_what_cannot_come_in_time_is_refused_and_never_run() -> None:
    model, registry = FakeModel(), CollectorRegistry()

    async def hurried(batcher: Batcher) -> "asyncio.Task[list[Scored | ItemTooLarge]]":
        context.set_budget(0.01)
        return await queued(batcher, item(5))

    async with running(model, registry=registry) as batcher:
        first = await occupied(batcher, model)
        late = await asyncio.create_task(hurried(batcher))
        patient = await queued(batcher, item(2))
        await asyncio.sleep(0.02)
        model.open.set()
        outcomes = await asyncio.gather(first, late, patient, return_exceptions=True)
    assert isinstance(outcomes[1], DeadlineExceeded)
    assert model.batches == [[1], [2]]
    assert registry.get_sample_value("e2h_verifier_expired_total") == 1
    assert registry.get_sample_value("e2h_verifier_queue_tokens") == 0


async def test_a_full_batch_waits_behind_the_running_one_and_the_rest_stay_open_to_others() -> None:
    model = FakeModel()
    async with running(model, budget=30) as batcher:
        first = await occupied(batcher, model)
        many = [await queued(batcher, item(name)) for name in range(2, 7)]
        await asyncio.sleep(0.01)
        late = await queued(batcher, item(7))
        model.open.set()
        await asyncio.gather(first, *many, late)
    assert model.batches == [[1], [2, 3, 4], [5, 6, 7]]


async def test_a_problems_solutions_stay_together() -> None:
    model = FakeModel()
    async with running(model, budget=20) as batcher:
        first = await occupied(batcher, model)
        callers = [
            asyncio.create_task(batcher.score([item(name)], group=group))
            for name, group in ((2, "p"), (3, "q"), (4, "p"))
        ]
        await asyncio.sleep(0)
        model.open.set()
        await asyncio.gather(first, *callers)
    assert model.batches == [[1], [2, 4], [3]]

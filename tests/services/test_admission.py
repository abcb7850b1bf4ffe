"""What a generator takes on: room is reserved for the most that a request may make, and let go however it ends."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.core.contracts import GenerateRequest
from services.core.errors import Overloaded
from services.generator.admission import BoundedGenerator
from tests.fakes import FakeGenerator, unreachable
from tests.serving import eventually

TEXTS = ["x"]


def request(n: int = 1, max_tokens: int = 10) -> GenerateRequest:
    return GenerateRequest.model_validate({"problem": "p", "n": n, "sampling": {"max_tokens": max_tokens}})


async def drawn(bounded: BoundedGenerator, **fields: int) -> list[Any]:
    return [event async for event in bounded.generate(request(**fields))]


def reserved(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("e2h_generator_reserved_tokens")


async def test_what_finds_no_room_is_refused_before_it_begins_and_room_comes_back_sample_by_sample() -> None:
    registry, hold = CollectorRegistry(), asyncio.Event()
    engine = FakeGenerator(TEXTS, holds={1: hold})
    bounded = BoundedGenerator(engine, 30, registry)
    first = asyncio.create_task(drawn(bounded, n=2))
    assert await eventually(lambda: reserved(registry) == 10)  # its first sample has come
    second = asyncio.create_task(drawn(bounded, n=2))
    assert await eventually(lambda: reserved(registry) == 20)
    with pytest.raises(Overloaded) as refusal:
        await drawn(bounded, n=2)
    assert refusal.value.retry_after_s > 0
    assert len(engine.requests) == 2
    assert registry.get_sample_value("e2h_generator_refused_total") == 1
    hold.set()
    assert [len(events) for events in await asyncio.gather(first, second)] == [3, 3]
    assert reserved(registry) == 0


async def test_an_idle_generator_takes_a_request_larger_than_its_bound() -> None:
    bounded = BoundedGenerator(FakeGenerator(TEXTS), 5, CollectorRegistry())
    assert len(await drawn(bounded, n=4)) == 5


@pytest.mark.parametrize("ending", ["fails", "is left"])
async def test_room_is_let_go_however_a_request_ends(ending: str) -> None:
    registry, hold = CollectorRegistry(), asyncio.Event()
    engine = FakeGenerator(TEXTS, holds={1: hold}, failure=unreachable() if ending == "fails" else None, fail_after=1)
    bounded = BoundedGenerator(engine, 30, registry)
    asking = asyncio.create_task(drawn(bounded, n=3))
    assert await eventually(lambda: bool(engine.requests))
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert reserved(registry) == 0


async def test_the_wait_is_predicted_from_the_pace_of_samples() -> None:
    registry, now = CollectorRegistry(), 0.0

    class Ticking(FakeGenerator):
        async def generate(self, request: GenerateRequest):  # type: ignore[no-untyped-def]
            nonlocal now
            async for event in super().generate(request):
                now += 2.0  # five reserved tokens a second
                yield event

    holds = {1: asyncio.Event()}
    bounded = BoundedGenerator(Ticking(TEXTS, holds=holds), 20, registry, lambda: now)
    await drawn(bounded)
    first = asyncio.create_task(drawn(bounded, n=2))
    assert await eventually(lambda: reserved(registry) == 10)
    with pytest.raises(Overloaded) as refusal:
        await drawn(bounded, n=2)
    assert refusal.value.retry_after_s == pytest.approx(2.0)
    holds[1].set()
    await first

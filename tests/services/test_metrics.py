"""What reranking tells of itself: each metric is exported under its name, moves with what it counts, and is closed."""

import asyncio
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.core.contracts import ScoreRequest, SolveRequest
from services.core.errors import NotReady
from services.core.voting import Strategy
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.routing import Policy, ReplicatedVerifier, RoutingMetrics
from services.orchestrator.solver import Solver
from services.runtime.lag import LoopLag
from services.verifier.model import RawScores
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, solution
from tests.services.test_batcher import FakeModel, item, occupied, open_model, queued, running
from tests.serving import eventually

WRONG, RIGHT = solution("41", "It is 41."), solution("42", "It is 42.")


def prefers_right(step: str) -> float:
    return 0.9 if "42" in step else 0.1


async def solved(texts: list[str], verifier: FakeVerifier | None = None, **fields: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    solver = Solver(FakeGenerator(texts), verifier or FakeVerifier(), InlineGrader(), SolveMetrics(registry))
    await solver.solve(SolveRequest.model_validate({"problem": "p", "n": len(texts), **fields}))
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("texts", "verdict"),
    [([RIGHT, WRONG, WRONG], "disagrees"), ([RIGHT, RIGHT, WRONG], "agrees"), ([RIGHT, WRONG], "agrees")],
    ids=["a minority wins", "the majority wins", "as many votes are no disagreement"],
)
async def test_a_verifier_against_the_majority_is_counted(texts: list[str], verdict: str) -> None:
    registry = await solved(texts, FakeVerifier(score_of=prefers_right))
    name = "e2h_solve_verifier_vs_majority_total"
    assert value(registry, name, verdict=verdict) == 1
    assert value(registry, name, verdict="agrees" if verdict == "disagrees" else "disagrees") is None


async def test_a_majority_vote_is_not_compared_with_itself() -> None:
    registry = await solved([RIGHT, WRONG], strategy=Strategy.MAJORITY)
    assert b"e2h_solve_verifier_vs_majority_total{" not in generate_latest(registry)


async def test_solves_without_an_answer_and_margins_are_counted() -> None:
    registry = await solved(["no answer here"] * 2)
    assert (value(registry, "e2h_solves_unanswered_total"), value(registry, "e2h_solve_margin_count")) == (1, 0)
    assert value(registry, "e2h_solve_candidates_total", part="no_answer") == 2
    registry = await solved([RIGHT, WRONG], FakeVerifier(score_of=prefers_right))
    assert (value(registry, "e2h_solves_unanswered_total"), value(registry, "e2h_solve_margin_count")) == (0, 1)


async def test_what_an_early_stop_saves_is_counted() -> None:
    registry = await solved([RIGHT] * 16, strategy=Strategy.MAJORITY, early_stop=True)
    assert (value(registry, "e2h_solve_samples_saved_total", strategy="majority") or 0) > 0


async def test_the_age_of_the_queue_is_that_of_who_waits_longest() -> None:
    registry, model = CollectorRegistry(), FakeModel()
    async with running(model, budget=10, registry=registry) as batcher:
        first = await occupied(batcher, model)
        assert value(registry, "e2h_verifier_queue_age_seconds") == 0
        waiting = await queued(batcher, item(2), item(3))  # the first of them is a full batch, ready behind the running
        await asyncio.sleep(0.1)
        assert 0.1 <= (value(registry, "e2h_verifier_queue_age_seconds") or 0) < 60
        model.open.set()
        await asyncio.gather(first, waiting)
        assert value(registry, "e2h_verifier_queue_age_seconds") == 0


async def test_tokens_are_computed_or_cached_and_batches_are_told_by_their_tokens() -> None:
    registry = CollectorRegistry()
    model = open_model(lambda batch: [RawScores((0.5,), None, computed=4) for _ in batch])
    async with running(model, registry=registry) as batcher:
        await batcher.score([item(1), item(2)])
    assert value(registry, "e2h_verifier_tokens_total") == 20
    assert value(registry, "e2h_verifier_tokens_computed_total") == 8
    assert value(registry, "e2h_verifier_tokens_cached_total") == 12
    assert value(registry, "e2h_verifier_batch_tokens_count") == 1


async def test_retries_and_breakers_of_upstreams_are_shown() -> None:
    registry = CollectorRegistry()
    broken = FakeVerifier(failure=NotReady("loading"), not_ready="loading")
    routed = ReplicatedVerifier([broken, FakeVerifier()], RoutingMetrics(registry), Policy(rest_s=600.0))
    request = {"problem": "p", "solutions": [{"text": "a"}]}
    for k in range(20):
        await routed.score(ScoreRequest.model_validate({**request, "problem": str(k)}))
    assert value(registry, "e2h_upstream_retries_total", service="verifier") == 1
    assert value(registry, "e2h_upstream_breaker_state", service="verifier", replica="0") == 2
    assert value(registry, "e2h_upstream_breaker_state", service="verifier", replica="1") == 0
    await routed.close()


async def test_the_lag_of_the_event_loop_is_the_longest_hold_up_of_late() -> None:
    registry = CollectorRegistry()
    watching = asyncio.create_task(LoopLag(registry).watch())
    await asyncio.sleep(0.2)
    time.sleep(0.6)  # noqa: ASYNC251 - which is what is measured
    assert await eventually(lambda: (value(registry, "e2h_event_loop_lag_seconds") or 0) >= 0.5)
    watching.cancel()

"""The engines that take no time, and what is measured around them."""

import pytest

from benchmarks import solve
from benchmarks.instant import InstantGenerator, InstantVerifier
from services.core.contracts import GenerateDone, GenerateRequest, ScoreRequest, SolutionInput


async def test_the_samples_differ_and_every_step_has_a_score() -> None:
    events = [event async for event in InstantGenerator().generate(GenerateRequest(problem="p", n=8))]
    texts = {event.text for event in events if not isinstance(event, GenerateDone)}
    assert len(texts) == 8
    request = ScoreRequest(problem="p", solutions=[SolutionInput(text=text) for text in sorted(texts)])
    response, _ = await InstantVerifier().score(request)
    assert [len(solution.steps) for solution in response.solutions] == [3] * 8


@pytest.mark.alone
async def test_scoring_overlaps_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "SAMPLES", 12)
    found = await solve.overlap()
    # 1.02 on a quiet machine, where one after the other takes 1.9.
    assert found["by_the_longer"] < 1.4 < found["one_after_the_other"]


@pytest.mark.alone
async def test_replicas_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "REQUESTS", 60)
    found = await solve.replicas()
    assert found["two_by_one"] >= 1.5
    assert found["four_by_one"] >= 2.2

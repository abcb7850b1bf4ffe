"""The time budget of a request through the orchestrator: passed on, kept, and answered within."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from prometheus_client import CollectorRegistry

from services.core.contracts import GenerateRequest, ScoreRequest, SolveRequest, SolveResponse
from services.core.errors import DeadlineExceeded, UpstreamUnavailable
from services.core.ports import Generator, Verifier
from services.core.voting import Strategy
from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.openai import OpenAIGenerator
from services.orchestrator.clients.transport import Upstream, upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.solver import Solver
from services.runtime import context
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, solution
from tests.serving import all_in_one_app, eventually, generator_app, served, verifier_app

pytestmark = pytest.mark.timeout(60)

TEXTS = [solution(str(k), f"so {k}") for k in range(4)]
SCORE = ScoreRequest.model_validate({"problem": "p", "solutions": [{"text": "a"}]})
GENERATE = GenerateRequest(problem="p", n=1)
# Long enough for what is to happen before it ends, on a machine that others use too.
BUDGET_S = 1.0


def request(n: int = 4, **fields: object) -> SolveRequest:
    return SolveRequest.model_validate({"problem": "What is 6 times 7?", "n": n, **fields})


async def solve(generator: Generator, verifier: Verifier, asked: SolveRequest, seconds: float) -> SolveResponse:
    """The answer under a budget, in a task of its own."""

    async def budgeted() -> SolveResponse:
        context.set_budget(seconds)
        return await Solver(generator, verifier, InlineGrader(), SolveMetrics(CollectorRegistry())).solve(asked)

    return await asyncio.create_task(budgeted())


# --- the solve -------------------------------------------------------------------------------------------------------


async def test_past_its_deadline_a_solve_asks_nobody() -> None:
    generator, verifier = FakeGenerator(TEXTS), FakeVerifier()
    with pytest.raises(DeadlineExceeded):
        await solve(generator, verifier, request(), seconds=-0.001)
    assert (generator.requests, verifier.requests) == ([], [])


async def test_when_the_budget_ends_amid_the_samples_the_answer_is_made_of_those_that_are_scored() -> None:
    generator, verifier = FakeGenerator(TEXTS, holds={3: asyncio.Event()}), FakeVerifier()
    response = await solve(generator, verifier, request(), seconds=BUDGET_S)
    assert (response.partial, [c.score is not None for c in response.candidates]) == (True, [True] * 3)
    assert response.answer is not None
    assert generator.cancelled == 1


async def test_the_answer_leaves_before_the_budget_ends() -> None:
    async def took() -> float:
        began = time.monotonic()
        await solve(FakeGenerator(TEXTS, holds={3: asyncio.Event()}), FakeVerifier(), request(), seconds=BUDGET_S)
        return time.monotonic() - began

    # A machine that others use may pause for longer than the reserve; an answer made too late is late each time.
    assert min([await took() for _ in range(5)]) < BUDGET_S


async def test_when_the_budget_ends_before_anything_is_scored_it_says_so() -> None:
    generator, verifier = FakeGenerator(TEXTS), FakeVerifier(hold=asyncio.Event())
    with pytest.raises(DeadlineExceeded):
        await solve(generator, verifier, request(), seconds=BUDGET_S)
    assert await eventually(lambda: verifier.cancelled == len(verifier.requests) > 0)


async def test_a_majority_needs_samples_and_no_scores() -> None:
    generator = FakeGenerator(TEXTS, holds={1: asyncio.Event()})
    response = await solve(generator, FakeVerifier(), request(strategy=Strategy.MAJORITY), seconds=BUDGET_S)
    assert (response.partial, len(response.candidates)) == (True, 1)


async def test_scores_that_the_verifier_says_come_too_late_are_done_without() -> None:
    verifier = FakeVerifier(failure=DeadlineExceeded("late"), fail_after=3)
    response = await solve(FakeGenerator(TEXTS), verifier, request(), seconds=60)
    assert response.partial
    assert [c.excluded for c in response.candidates].count("not_scored") == 1


@pytest.mark.parametrize("on_failure", ["fail", "majority"])
async def test_lateness_is_no_failure_of_the_verifier(on_failure: str) -> None:
    verifier = FakeVerifier(failure=DeadlineExceeded("late"))
    with pytest.raises(DeadlineExceeded):
        await solve(FakeGenerator(TEXTS), verifier, request(on_verifier_failure=on_failure), seconds=60)


async def test_without_a_budget_a_solve_takes_its_time() -> None:
    hold = asyncio.Event()
    solving = asyncio.create_task(solve(FakeGenerator(TEXTS, holds={3: hold}), FakeVerifier(), request(), float("inf")))
    await asyncio.sleep(0.3)
    hold.set()
    assert not (await solving).partial


async def test_a_budget_of_one_solve_is_not_that_of_the_next() -> None:
    await solve(FakeGenerator(TEXTS), FakeVerifier(), request(), seconds=BUDGET_S)
    assert context.time_left() == float("inf")


# --- over sockets ----------------------------------------------------------------------------------------------------


async def test_a_caller_with_a_budget_gets_504_or_what_is_there() -> None:
    generator = FakeGenerator(TEXTS, holds={3: asyncio.Event()})
    stuck = FakeGenerator(TEXTS, holds={0: asyncio.Event()})
    for engine, status in ((generator, 200), (stuck, 504)):
        async with (
            served(all_in_one_app(engine, FakeVerifier())) as address,
            httpx2.AsyncClient(base_url=address.url) as client,
        ):
            headers = {"x-request-timeout-ms": str(int(BUDGET_S * 1000))}
            answer = await client.post("/v1/solve", json={"problem": "p", "n": 4}, headers=headers)
        assert answer.status_code == status
        assert answer.json().get("partial", answer.json().get("error", {}).get("code")) in (True, "deadline_exceeded")


async def test_a_service_that_hears_of_the_budget_gets_what_is_left_of_it() -> None:
    seen: list[float] = []

    class Noting(FakeVerifier):
        async def score(self, request: ScoreRequest) -> Any:
            seen.append(context.time_left())
            return await super().score(request)

    async with served(verifier_app(Noting())) as address:
        client = HttpVerifier(upstream("verifier", address.url, connect_timeout_s=2, read_timeout_s=20))
        await solve(FakeGenerator(TEXTS), client, request(), seconds=30)
        await client.close()
    assert 1 <= len(seen) <= 4
    assert all(20 < left < 30 - 0.2 for left in seen)  # less what the vote needs


# --- clients ---------------------------------------------------------------------------------------------------------


def recording(seen: list[httpx2.Request]) -> Upstream:
    def answer(sent: httpx2.Request) -> httpx2.Response:
        seen.append(sent)
        return httpx2.Response(500)

    transport = httpx2.MockTransport(answer)
    timeout = httpx2.Timeout(600, connect=2)
    return Upstream("service", httpx2.AsyncClient(transport=transport, base_url="http://upstream", timeout=timeout))


async def scores(behind: Upstream) -> None:
    await HttpVerifier(behind).score(SCORE)


async def samples(behind: Upstream) -> None:
    async for _ in HttpGenerator(behind).generate(GENERATE):
        pass


async def models(behind: Upstream) -> None:
    await HttpVerifier(behind).info()


@pytest.mark.parametrize("ask", [scores, samples, models], ids=lambda ask: ask.__name__)
async def test_each_request_tells_what_is_left_and_waits_no_longer(ask: Callable[[Upstream], Any]) -> None:
    seen: list[httpx2.Request] = []
    context.set_budget(1.5)
    with pytest.raises(UpstreamUnavailable):
        await ask(recording(seen))
    assert 0 < int(seen[0].headers["x-request-timeout-ms"]) <= 1500
    assert all(0 < seconds <= 1.5 for seconds in seen[0].extensions["timeout"].values())


@pytest.mark.parametrize("ask", [scores, samples, models], ids=lambda ask: ask.__name__)
async def test_without_a_budget_the_usual_patience_holds(ask: Callable[[Upstream], Any]) -> None:
    seen: list[httpx2.Request] = []
    with pytest.raises(UpstreamUnavailable):
        await ask(recording(seen))
    assert "x-request-timeout-ms" not in seen[0].headers
    assert (seen[0].extensions["timeout"]["connect"], seen[0].extensions["timeout"]["read"]) == (2, 600)


@pytest.mark.parametrize("ask", [scores, samples, models], ids=lambda ask: ask.__name__)
async def test_with_nothing_left_nothing_is_sent(ask: Callable[[Upstream], Any]) -> None:
    seen: list[httpx2.Request] = []
    context.set_budget(-0.001)
    with pytest.raises(DeadlineExceeded):
        await ask(recording(seen))
    assert seen == []


async def test_an_answer_that_is_awaited_to_the_end_of_the_budget_is_late_and_not_unavailable() -> None:
    context.set_budget(0.3)
    stuck = FakeGenerator(["x"], holds={0: asyncio.Event()})
    async with served(generator_app(stuck)) as one, served(verifier_app(FakeVerifier(hold=asyncio.Event()))) as two:
        for behind, ask in ((one, samples), (two, scores)):
            client = upstream("service", behind.url, connect_timeout_s=2, read_timeout_s=20)
            with pytest.raises(DeadlineExceeded):
                await ask(client)
            await client.close()
            context.set_budget(0.3)


async def test_a_probe_does_not_depend_on_anybodys_budget() -> None:
    context.set_budget(-1.0)
    async with served(verifier_app(FakeVerifier())) as address:
        client = HttpVerifier(upstream("verifier", address.url, connect_timeout_s=2, read_timeout_s=20))
        assert await client.ready() is None
        await client.close()


@pytest.mark.parametrize(("seconds", "error"), [(-1.0, DeadlineExceeded), (1.5, UpstreamUnavailable)])
async def test_an_openai_server_is_waited_for_no_longer_either(seconds: float, error: type[Exception]) -> None:
    seen: list[httpx2.Request] = []

    def answer(sent: httpx2.Request) -> httpx2.Response:
        seen.append(sent)
        return httpx2.Response(500)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    api = openai.AsyncOpenAI(base_url="http://openai/v1", api_key="none", http_client=http, max_retries=0)
    context.set_budget(seconds)
    with pytest.raises(error):
        async for _ in OpenAIGenerator(api, "m", "chat", "s").generate(GENERATE):
            pass
    assert len(seen) == (1 if seconds > 0 else 0)
    assert all(0 < limit <= 1.5 for sent in seen for limit in sent.extensions["timeout"].values())

"""The edge through real processes on the demo pair: OpenAI's client, streams, early stop, a closed socket."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from services.core.contracts import SolveResponse
from tests.integration.conftest import Stack
from training.lab.domain import make_problem

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

SAMPLES = "e2h_generator_samples_total"
EASY = make_problem(level=1, seed=3)
LONGER = make_problem(level=3, seed=3)
REQUEST: dict[str, Any] = {
    "problem": EASY.question,
    "n": 32,
    "sampling": {"temperature": 1.0, "max_tokens": 110, "seed": 7},
}


def solve(url: str, **changes: Any) -> SolveResponse:
    response = httpx2.post(f"{url}/v1/solve", json={**REQUEST, **changes}, timeout=300)
    assert response.status_code == 200, response.text
    return SolveResponse.model_validate_json(response.content)


def metric(url: str, name: str) -> float:
    """The value of a metric, summed over its labels."""
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((name + " ", name + "{")))


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def cancelled(url: str) -> float:
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    wanted = f'{SAMPLES}{{finish_reason="cancelled"}}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(wanted))


async def test_openais_client_is_answered_as_our_own_route_answers(three: Stack) -> None:
    ours = solve(three.orchestrator.url)
    async with openai.AsyncOpenAI(base_url=f"{three.orchestrator.url}/v1", api_key="none", timeout=300) as client:
        ask: dict[str, Any] = {
            "model": "e2h",
            "messages": [{"role": "user", "content": EASY.question}],
            "temperature": 1.0,
            "max_tokens": 110,
            "seed": 7,
            "extra_body": {"e2h": {"n": 32}},
        }
        whole = await client.chat.completions.create(**ask)
        stream = await client.chat.completions.create(**ask, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        with pytest.raises(openai.BadRequestError) as caught:  # the demo generator has no chat template
            await client.chat.completions.create(
                **{**ask, "messages": [{"role": "system", "content": "Be brief."}, *ask["messages"]]}
            )
    assert whole.choices[0].message.content == text == ours.solution
    assert whole.usage is not None
    assert whole.usage.completion_tokens == ours.usage.completion_tokens
    assert whole.usage.prompt_tokens == ours.usage.prompt_tokens > 0
    assert caught.value.code == "unsupported_parameter"


@pytest.mark.parametrize("strategy", ["weighted", "majority"])
def test_a_lossless_stop_gives_the_answer_of_the_full_run(three: Stack, strategy: str) -> None:
    full = solve(three.orchestrator.url, strategy=strategy)
    before, ended = cancelled(three.generator.url), metric(three.generator.url, SAMPLES)
    stopped = solve(three.orchestrator.url, strategy=strategy, early_stop="lossless")
    assert stopped.answer == full.answer
    assert stopped.usage.prompt_tokens == full.usage.prompt_tokens
    assert stopped.used <= len(stopped.candidates)
    assert stopped.stopped_early == (stopped.used < 32)
    # Every sample ended in the engine; those that had not when the vote was decided, by being stopped.
    assert eventually(lambda: metric(three.generator.url, SAMPLES) - ended == 32)
    assert cancelled(three.generator.url) - before <= 32 - len(stopped.candidates)


def test_a_confident_vote_stops_the_engine(three: Stack) -> None:
    before, ended = cancelled(three.generator.url), metric(three.generator.url, SAMPLES)
    # Four times as many as the engine decodes at once, and not of the shortest: most have not begun when the first have
    # come, also where the orchestrator has to wait for a processor.
    stopped = solve(
        three.orchestrator.url, problem=LONGER.question, strategy="majority", early_stop="confident", n=1024
    )
    assert stopped.stopped_early
    assert stopped.used < 1024
    assert eventually(lambda: metric(three.generator.url, SAMPLES) - ended == 1024)
    # Some may have ended by themselves and were on their way when the vote was decided.
    assert 0 < cancelled(three.generator.url) - before <= 1024 - len(stopped.candidates)
    assert eventually(lambda: metric(three.generator.url, "e2h_generator_samples_running") == 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_closed_socket_frees_the_engine_and_the_verifier_across_processes(three: Stack, stream: bool) -> None:
    url = httpx2.URL(three.orchestrator.url)
    before = cancelled(three.generator.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    body = json.dumps({**REQUEST, "problem": make_problem(level=5, seed=5).question, "n": 128, "stream": stream})
    head = f"POST /v1/solve HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    writer.write(f"{head}\r\n\r\n{body}".encode())
    running = "e2h_generator_samples_running"
    assert await asyncio.to_thread(eventually, lambda: metric(three.generator.url, running) > 0)
    if stream:
        await reader.readuntil(b"data: ")
    writer.close()
    assert await asyncio.to_thread(eventually, lambda: metric(three.generator.url, running) == 0)
    assert cancelled(three.generator.url) > before
    assert await asyncio.to_thread(eventually, lambda: metric(three.verifier.url, "e2h_verifier_queue_tokens") == 0)
    assert await asyncio.to_thread(eventually, lambda: metric(three.orchestrator.url, "e2h_http_inflight") == 1)

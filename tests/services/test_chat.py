"""OpenAI's routes through the unmodified `openai` client over real sockets, streamed and not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from prometheus_client import CollectorRegistry

from services.core.contracts import SolveRequest
from services.core.errors import NotReady, UpstreamUnavailable
from services.core.strategies import SolveStrategy
from services.core.voting import Strategy
from services.orchestrator.api.chat import chat_router
from services.orchestrator.chat import ranked
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.solver import Solver
from services.runtime.app import Lifecycle
from tests.fakes import (
    PROMPT_TOKENS,
    TOKENS_OF_A_SAMPLE,
    FakeGenerator,
    FakeVerifier,
    InlineGrader,
    TreeGenerator,
    solution,
    unreachable,
)
from tests.serving import eventually, served, serving_app

pytestmark = pytest.mark.timeout(60)

GOOD, BAD, OTHER = solution("42", "good"), solution("41", "bad"), solution("40", "other")
SCORES = {"good": 0.75, "bad": 0.25, "other": 0.5}
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is 6 times 7?"}]
USAGE = (PROMPT_TOKENS, 4 * TOKENS_OF_A_SAMPLE, PROMPT_TOKENS + 4 * TOKENS_OF_A_SAMPLE)


def score_of(step: str) -> float:
    return SCORES.get(step.split("\n")[0], 0.5)


@asynccontextmanager
async def client_of(
    generator: FakeGenerator | TreeGenerator, verifier: FakeVerifier | None = None, keep_alive_s: float = 10.0
) -> AsyncIterator[openai.AsyncOpenAI]:
    solver = Solver(generator, verifier or FakeVerifier(score_of), InlineGrader(), SolveMetrics(CollectorRegistry()))
    app = serving_app([chat_router(solver, keep_alive_s)], Lifecycle())
    async with (
        served(app) as address,
        openai.AsyncOpenAI(base_url=f"{address.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def samples(**options: Any) -> dict[str, Any]:
    """Four samples, and these solve fields."""
    return {"e2h": {"n": 4, **options}}


async def test_the_answer_is_a_completion_with_true_usage() -> None:
    async with client_of(FakeGenerator([BAD, GOOD, GOOD + "\n", OTHER])) as client:
        answer = await client.chat.completions.create(model="e2h", messages=ASK, extra_body=samples())
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", GOOD, "stop")
    assert (answer.object, answer.model, choice.index) == ("chat.completion", "e2h", 0)
    usage = answer.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == USAGE
    assert answer.model_extra is not None
    assert answer.model_extra["e2h"]["answer"] == "42"
    assert answer.model_extra["e2h"]["candidates"] == []


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        pytest.param("e2h", "41", id="weighted: three of a quarter are more than one of a half"),
        pytest.param("e2h/best_of_n", "40", id="best of n"),
        pytest.param("e2h/majority", "41", id="majority"),
    ],
)
async def test_the_model_is_the_strategy(model: str, answer: str) -> None:
    generator = FakeGenerator([OTHER, BAD, BAD + "\n", BAD + "\n\n"])
    async with client_of(generator) as client:
        told = await client.chat.completions.create(model=model, messages=ASK, extra_body=samples())
    assert (told.choices[0].message.content or "").split()[-1] == answer
    assert told.model == model


@pytest.mark.parametrize("model", ["e2h/beam", "e2h/dvts"])
async def test_a_search_is_a_model_too_and_its_shape_an_option(model: str) -> None:
    generator = TreeGenerator(
        {"": ["good\n\n", "bad\n\n"], "good\n\n": ["# Answer\n\n42"], "bad\n\n": ["# Answer\n\n41"]}
    )
    options = {"e2h": {"search": {"beam_width": 2, "expand": 2}, "include_candidates": True}}
    async with client_of(generator) as client:
        told = await client.chat.completions.create(model=model, messages=ASK, n=2, extra_body=options)
    assert (told.choices[0].message.content, told.model) == ("good\n\n# Answer\n\n42", model)
    assert told.usage is not None
    assert told.usage.completion_tokens == generator.delivered * TOKENS_OF_A_SAMPLE
    assert {r.n for r in generator.requests} == ({4, 2} if model == "e2h/beam" else {2})


async def test_models_are_the_strategies() -> None:
    async with client_of(FakeGenerator([GOOD])) as client:
        listed = [model async for model in client.models.list()]
        one = await client.models.retrieve("e2h/majority")
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("gpt-4o")
    assert [model.id for model in listed] == ["e2h", "e2h/best_of_n", "e2h/majority", "e2h/beam", "e2h/dvts"]
    assert all(model.object == "model" and model.created > 0 for model in listed)
    assert one.id == "e2h/majority"
    assert caught.value.code == "model_not_found"


async def test_choices_come_best_first() -> None:
    generator = FakeGenerator([OTHER, BAD, GOOD, "I do not know."])
    async with client_of(generator) as client:
        answer = await client.chat.completions.create(model="e2h", messages=ASK, n=4, extra_body=samples())
    assert [c.message.content for c in answer.choices] == [GOOD, OTHER, BAD, "I do not know."]
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]


async def test_without_any_answer_a_sample_is_shown_all_the_same() -> None:
    async with client_of(FakeGenerator(["It may be"], finish_reasons={0: "length", 1: "length"})) as client:
        answer = await client.chat.completions.create(model="e2h", messages=ASK, extra_body={"e2h": {"n": 2}})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("It may be", "length")
    assert answer.model_extra is not None
    assert answer.model_extra["e2h"]["answer"] is None


async def test_earlier_turns_and_the_system_message_reach_the_generator() -> None:
    generator = FakeGenerator([GOOD])
    messages: list[ChatCompletionMessageParam] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]},
        {"role": "assistant", "content": "Ask.", "refusal": None},
        *ASK,
    ]
    async with client_of(generator) as client:
        await client.chat.completions.create(model="e2h", messages=messages)
    (asked,) = generator.requests
    assert asked.problem == "What is 6 times 7?"
    assert [(m.role, m.content) for m in asked.messages or []] == [
        ("system", "Be brief."),
        ("user", "Hello\nthere"),
        ("assistant", "Ask."),
    ]


async def test_a_problem_alone_leaves_the_generators_own_prompt() -> None:
    generator = FakeGenerator([GOOD])
    async with client_of(generator) as client:
        await client.chat.completions.create(model="e2h", messages=ASK)
    assert generator.requests[0].messages is None
    assert generator.requests[0].n == 8


async def test_sampling_is_asked_for_in_openais_fields_and_in_ours() -> None:
    generator = FakeGenerator([GOOD])
    async with client_of(generator) as client:
        await client.chat.completions.create(
            model="e2h",
            messages=ASK,
            temperature=1,
            max_completion_tokens=33,
            seed=9,
            user="somebody",
            metadata={"a": "b"},
            logprobs=False,
            extra_body=samples(sampling={"top_p": 0.5}),
        )
    sampling = generator.requests[0].sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.seed, sampling.top_p) == (1.0, 33, 9, 0.5)


async def test_solve_fields_are_honoured() -> None:
    generator = FakeGenerator([GOOD, BAD])
    options = samples(strategy="majority", reference="42", include_candidates=True, early_stop="lossless")
    async with client_of(generator, FakeVerifier(info_failure=unreachable())) as client:
        answer = await client.chat.completions.create(model="e2h", messages=ASK, extra_body=options)
    assert answer.model_extra is not None
    told = answer.model_extra["e2h"]
    assert (told["strategy"], told["correct"], len(told["candidates"])) == ("majority", True, 4)


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream_is_role_text_end_and_usage() -> None:
    async with client_of(FakeGenerator([BAD, GOOD, GOOD + "\n", OTHER])) as client:
        stream = await client.chat.completions.create(
            model="e2h",
            messages=ASK,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=samples(),
        )
        opening, *middle, end, last = [chunk async for chunk in stream]
    assert (opening.choices[0].delta.role, opening.choices[0].delta.content) == ("assistant", "")
    assert "".join(c.choices[0].delta.content or "" for c in middle) == GOOD
    assert end.choices[0].finish_reason == "stop"
    assert end.model_extra is not None
    assert end.model_extra["e2h"]["answer"] == "42"
    assert (last.choices, last.usage is not None) == ([], True)
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == USAGE
    assert len({c.id for c in (opening, *middle, end, last)}) == 1


async def test_without_the_option_a_stream_tells_no_usage() -> None:
    async with client_of(FakeGenerator([GOOD])) as client:
        stream = await client.chat.completions.create(model="e2h", messages=ASK, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_a_fault_before_the_first_sample_has_its_status() -> None:
    async with client_of(FakeGenerator([GOOD], failure=NotReady("loading"))) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="e2h", messages=ASK, stream=True)
    assert (caught.value.status_code, caught.value.code) == (503, "not_ready")


async def test_a_fault_amid_a_stream_is_an_error_of_the_client() -> None:
    verifier = FakeVerifier(score_of, failure=UpstreamUnavailable("the verifier is down"), fail_after=0)
    async with client_of(FakeGenerator([GOOD]), verifier) as client:
        stream = await client.chat.completions.create(model="e2h", messages=ASK, stream=True)
        with pytest.raises(openai.APIError, match="the verifier is down"):
            _ = [chunk async for chunk in stream]


async def test_a_silent_stream_is_kept_alive_by_comments_that_the_client_skips() -> None:
    held = asyncio.Event()
    generator = FakeGenerator([GOOD], holds={0: held})
    async with (
        client_of(generator, keep_alive_s=0.02) as client,
        client.chat.completions.with_streaming_response.create(model="e2h", messages=ASK, stream=True) as response,
    ):
        lines = response.iter_lines()
        assert await anext(lines) == ": keep-alive"
        held.set()
        rest = [line async for line in lines]
    data = [line for line in rest if line and line != ": keep-alive"]
    assert all(line.startswith("data: ") for line in data)
    assert data[-1] == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_stops_samples_and_scores(stream: bool) -> None:
    generator = FakeGenerator([GOOD, BAD], holds={1: asyncio.Event()})
    verifier = FakeVerifier(score_of, hold=asyncio.Event())
    async with client_of(generator, verifier) as client:
        asking = asyncio.create_task(_read(client, stream))
        await asyncio.wait_for(verifier.began.wait(), timeout=10)
        asking.cancel()
        assert await eventually(lambda: (generator.cancelled, verifier.cancelled) == (1, 1))


async def _read(client: openai.AsyncOpenAI, stream: bool) -> None:
    if not stream:
        await client.chat.completions.create(model="e2h", messages=ASK)
        return
    async with await client.chat.completions.create(model="e2h", messages=ASK, stream=True) as chunks:
        async for _ in chunks:
            pass


# --- ranking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_the_first_choice_is_the_solution_that_the_solve_shows(strategy: Strategy) -> None:
    generator = FakeGenerator([OTHER, BAD, GOOD, BAD + "\n", "no idea"], order=[4, 2, 0, 3, 1])
    solver = Solver(generator, FakeVerifier(score_of), InlineGrader(), SolveMetrics(CollectorRegistry()))
    response = await solver.solve(SolveRequest(problem="p", n=5, strategy=SolveStrategy(strategy.value)))
    order = ranked(response)
    assert order[0].text == response.solution
    assert order[-1].text == "no idea"
    assert sorted(c.index for c in order) == [0, 1, 2, 3, 4]

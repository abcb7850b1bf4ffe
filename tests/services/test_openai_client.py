"""Any OpenAI-compatible server as a Generator, against a small one of our own over ASGI."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2
import openai
import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from services.core.contracts import Completion, GenerateDone, GenerateRequest, Message, Sampling
from services.core.errors import E2HError, InvalidRequest, Overloaded, UpstreamContract, UpstreamUnavailable
from services.core.seeds import derive_seed
from services.orchestrator.clients.openai import OpenAIGenerator
from tests.serving import eventually

ALLOWED = {"model", "messages", "prompt", "temperature", "top_p", "max_tokens", "stop", "seed"}
Change = Callable[[dict[str, Any]], object]


@dataclass
class OpenAIServer:
    """Answers both completion routes; `change` may spoil the answer, `refusal` replaces it."""

    change: Change = lambda body: None
    refusal: Response | None = None
    hold: asyncio.Event | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self.answer, methods=["POST"])
        app.add_api_route("/v1/completions", self.answer, methods=["POST"])
        app.add_api_route("/v1/models", self.models)
        return app

    async def models(self) -> Response:
        return JSONResponse({"object": "list", "data": []})

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.refusal is not None:
            return self.refusal
        text = f"sample of seed {body['seed']}"
        choice = {"index": 0, "finish_reason": "stop", "text": text, "message": {"role": "assistant", "content": text}}
        answer = {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }
        self.change(answer)
        return JSONResponse(answer)


def client(server: OpenAIServer, style: Literal["chat", "easy-to-hard"] = "chat") -> OpenAIGenerator:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(server.app()), base_url="http://openai")
    api = openai.AsyncOpenAI(base_url="http://openai/v1", api_key="none", http_client=http, max_retries=0)
    return OpenAIGenerator(api, "some/model", style, "Reason in steps.")


def request(n: int = 3, **fields: Any) -> GenerateRequest:
    sampling = Sampling(temperature=1.25, top_p=0.5, max_tokens=33, seed=9)
    return GenerateRequest.model_validate({"problem": "What is 6 times 7?", "n": n, "sampling": sampling, **fields})


async def run(
    server: OpenAIServer, asked: GenerateRequest, style: Literal["chat", "easy-to-hard"] = "chat"
) -> tuple[list[Completion], GenerateDone]:
    events = [event async for event in client(server, style).generate(asked)]
    completions = [event for event in events if isinstance(event, Completion)]
    assert isinstance(events[-1], GenerateDone)
    return sorted(completions, key=lambda c: c.index), events[-1]


@pytest.mark.parametrize("style", ["chat", "easy-to-hard"])
async def test_each_sample_is_a_request_with_a_seed_of_its_own(style: Literal["chat", "easy-to-hard"]) -> None:
    server = OpenAIServer()
    completions, _ = await run(server, request(5), style)
    seeds = [derive_seed(9, index) & (2**31 - 1) for index in range(5)]
    assert sorted(body["seed"] for body in server.bodies) == sorted(seeds)
    assert [(c.index, c.seed) for c in completions] == list(enumerate(seeds))
    assert [c.text for c in completions] == [f"sample of seed {seed}" for seed in seeds]


async def test_a_sample_that_is_made_again_has_the_seed_that_it_had() -> None:
    server = OpenAIServer()
    every, _ = await run(server, request(4))
    again, _ = await run(server, request(2, indices=[3, 1]))
    assert again == [every[1], every[3]]


async def test_without_a_seed_two_requests_draw_different_samples() -> None:
    server = OpenAIServer()
    for _ in range(2):
        await run(server, request(1, sampling=Sampling()))
    assert server.bodies[0]["seed"] != server.bodies[1]["seed"]


async def test_usage_is_summed_over_the_requests() -> None:
    completions, done = await run(OpenAIServer(), request(4))
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (44, 28)
    assert [c.tokens for c in completions] == [7] * 4
    assert [c.prompt_tokens for c in completions] == [11] * 4  # each request reads the prompt


async def test_text_completions_refuse_a_conversation() -> None:
    server = OpenAIServer()
    with pytest.raises(InvalidRequest) as caught:
        await run(server, request(1, messages=[Message(role="system", content="s")]), "easy-to-hard")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages")
    assert server.bodies == []


@pytest.mark.parametrize("style", ["chat", "easy-to-hard"])
@pytest.mark.parametrize("stop", [[], ["\n\n\n"]], ids=["no stop", "stop"])
async def test_only_fields_of_the_schema_are_sent(style: Literal["chat", "easy-to-hard"], stop: list[str]) -> None:
    server = OpenAIServer()
    sampling = Sampling(temperature=1.25, top_p=0.5, max_tokens=33, stop=stop)
    await run(server, request(1, sampling=sampling), style)
    (body,) = server.bodies
    assert set(body) <= ALLOWED
    assert ("stop" in body) == bool(stop)
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("some/model", 1.25, 0.5, 33)


async def test_the_chat_style_sends_the_system_prompt_and_the_problem() -> None:
    server = OpenAIServer()
    await run(server, request(1))
    assert server.bodies[0]["messages"] == [
        {"role": "system", "content": "Reason in steps."},
        {"role": "user", "content": "What is 6 times 7?"},
    ]


async def test_the_chat_style_sends_earlier_turns_and_lets_a_system_message_replace_the_prompt() -> None:
    server = OpenAIServer()
    messages = [
        Message(role="system", content="s"),
        Message(role="user", content="u"),
        Message(role="assistant", content="a"),
    ]
    await run(server, request(1, messages=messages))
    assert [m["content"] for m in server.bodies[0]["messages"]] == ["s", "u", "a", "What is 6 times 7?"]


async def test_the_easy_to_hard_style_sends_the_prompt_as_text() -> None:
    server = OpenAIServer()
    await run(server, request(1, prefix="one.\n\n"), "easy-to-hard")
    assert server.bodies[0]["prompt"] == "# Question\n\nWhat is 6 times 7?\n\n# Solution\n\none.\n\n"


async def test_a_chat_cannot_continue_a_partial_solution() -> None:
    with pytest.raises(InvalidRequest) as caught:
        await run(OpenAIServer(), request(1, prefix="one."))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "prefix")


@pytest.mark.parametrize(
    ("reason", "understood"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "cancelled"), (None, "cancelled")],
)
async def test_a_finish_reason_is_understood(reason: str | None, understood: str) -> None:
    completions, _ = await run(OpenAIServer(lambda body: body["choices"][0].update(finish_reason=reason)), request(1))
    assert completions[0].finish_reason == understood


def ended(**fields: Any) -> Change:
    return lambda body: body["choices"][0].update(fields)


BLANK = Sampling(stop=["\n\n"])
BOXED = "so \\boxed{42}"


@pytest.mark.parametrize(
    ("change", "sampling", "understood"),
    [
        pytest.param(ended(stop_reason="\n\n"), BLANK, "\n\n", id="told: a stop string"),
        pytest.param(ended(stop_reason=None), BLANK, None, id="told: the model ended"),
        pytest.param(ended(stop_reason=151645), BLANK, None, id="told: the token that ends a turn"),
        pytest.param(ended(stop_reason={"odd": 1}), BLANK, None, id="told: nonsense"),
        pytest.param(ended(stop_reason="\n\n", finish_reason="length"), BLANK, None, id="cut"),
        pytest.param(ended(), BLANK, "\n\n", id="not told: there is no answer yet"),
        pytest.param(
            ended(text=BOXED, message={"role": "assistant", "content": BOXED}), BLANK, None, id="not told: an answer"
        ),
        pytest.param(
            ended(text=" ", message={"role": "assistant", "content": ""}), BLANK, None, id="not told: nothing"
        ),
        pytest.param(ended(), Sampling(), None, id="no stop string was asked for"),
    ],
)
@pytest.mark.parametrize("style", ["chat", "easy-to-hard"])
async def test_what_stopped_a_sample_is_what_the_server_tells_or_else_a_rule(
    change: Change, sampling: Sampling, understood: str | None, style: Literal["chat", "easy-to-hard"]
) -> None:
    (completion,), _ = await run(OpenAIServer(change), request(1, sampling=sampling), style)
    assert completion.stop_reason == understood


async def test_behind_the_header_of_an_answer_the_answer_is_the_end() -> None:
    """Of a server that does not tell what stopped a sample."""
    server = OpenAIServer(lambda body: body["choices"][0].update(text="42"))
    asked = request(1, sampling=BLANK, prefix="one.\n\n# Answer\n\n")
    (completion,), _ = await run(server, asked, "easy-to-hard")
    assert completion.stop_reason is None


def refusing(status: int) -> Response:
    return JSONResponse({"error": {"message": "a secret", "type": "t", "code": "c"}}, status_code=status)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest),
        (401, UpstreamUnavailable),
        (403, UpstreamUnavailable),
        (404, UpstreamUnavailable),
        (422, InvalidRequest),
        (429, Overloaded),
        (500, UpstreamUnavailable),
        (503, UpstreamUnavailable),
    ],
)
async def test_a_refusal_is_an_error_of_ours_that_repeats_nothing(status: int, error: type[E2HError]) -> None:
    with pytest.raises(error) as caught:
        await run(OpenAIServer(refusal=refusing(status)), request(2))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("style", ["chat", "easy-to-hard"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda body: body["choices"].append(body["choices"][0]), id="two choices"),
        pytest.param(lambda body: body["choices"].clear(), id="no choice"),
        pytest.param(lambda body: body.update(choices=None), id="choices that are null"),
        pytest.param(lambda body: body.pop("usage"), id="no usage"),
        pytest.param(lambda body: body["usage"].update(completion_tokens="many"), id="tokens that are no number"),
        pytest.param(lambda body: body.update(usage={}), id="an empty usage"),
    ],
)
async def test_an_answer_outside_of_the_schema_breaks_the_contract(
    change: Change, style: Literal["chat", "easy-to-hard"]
) -> None:
    with pytest.raises(UpstreamContract):
        await run(OpenAIServer(change), request(1), style)


@pytest.mark.parametrize("style", ["chat", "easy-to-hard"])
async def test_an_answer_that_is_no_json_breaks_the_contract(style: Literal["chat", "easy-to-hard"]) -> None:
    with pytest.raises((UpstreamContract, UpstreamUnavailable)):
        await run(OpenAIServer(refusal=Response("<html>hello</html>", media_type="text/html")), request(1), style)


async def test_leaving_stops_every_request() -> None:
    server = OpenAIServer(hold=asyncio.Event())
    running = asyncio.create_task(run(server, request(4)))
    assert await eventually(lambda: len(server.bodies) == 4)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server.cancelled == 4


async def test_readiness_is_whether_the_server_answers() -> None:
    assert await client(OpenAIServer()).ready() is None
    api = openai.AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
    assert await OpenAIGenerator(api, "m", "chat", "s").ready() is not None
    await api.close()

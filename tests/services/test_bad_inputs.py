"""Bytes that no honest client sends, over a real socket: the right refusal, the exact envelope, nothing echoed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI

from services.core.contracts import ErrorEnvelope
from services.core.errors import ContextLengthExceeded, NotReady, Overloaded
from services.orchestrator.api.jobs import jobs_router
from services.orchestrator.jobs.service import Jobs
from services.orchestrator.jobs.settings import JobSettings
from services.runtime.settings import RuntimeSettings
from tests.fakes import FakeGenerator, FakeVerifier, solution
from tests.serving import Address, Switchboard, all_in_one_app, eventually, served

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 2 * 2**20
CANARY = "canary-7f3a"
SOLVE, VOTE, SCORE, GENERATE = "/v1/solve", "/v1/vote", "/v1/score", "/v1/generate"
GRADE, RERANK, RERANK_V2 = "/v1/grade", "/v1/rerank", "/v2/rerank"
CHAT, JOBS = "/v1/chat/completions", "/v1/jobs"
ROUTES = (SOLVE, VOTE, SCORE, GENERATE, GRADE, RERANK, RERANK_V2, CHAT)
BODIES: dict[str, dict[str, Any]] = {
    SOLVE: {"problem": CANARY, "n": 1},
    VOTE: {"candidates": [{"answer": CANARY, "score": 0.5}]},
    SCORE: {"problem": CANARY, "solutions": [{"steps": [CANARY]}]},
    GENERATE: {"problem": CANARY, "n": 1},
    GRADE: {"pairs": [{"gold": CANARY, "pred": CANARY}]},
    RERANK: {"query": CANARY, "documents": [CANARY]},
    RERANK_V2: {"query": CANARY, "documents": [CANARY]},
    CHAT: {"model": "e2h", "messages": [{"role": "user", "content": CANARY}], "e2h": {"n": 1}},
    JOBS: {"dataset": {"items": [{"id": "1", "problem": CANARY}]}, "n": 1},  # taken nowhere here: there is no redis
}
# A string and a number of each body, to be put out of order.
STRINGS = {
    SOLVE: "problem",
    VOTE: "strategy",
    SCORE: "problem",
    GENERATE: "problem",
    GRADE: "mode",
    RERANK: "query",
    RERANK_V2: "query",
    CHAT: "model",
    JOBS: "strategies",
}
NUMBERS = {
    SOLVE: "n",
    VOTE: "n",
    SCORE: "model",
    GENERATE: "n",
    GRADE: "mode",
    RERANK: "top_n",
    RERANK_V2: "top_n",
    CHAT: "n",
    JOBS: "n",
}


def status_on(route: str, status: int) -> int:
    """OpenAI's schema answers 400 where ours answers 422."""
    return 400 if route == CHAT and status == 422 else status


def unknown_field_on(route: str) -> str:
    return "unsupported_parameter" if route == CHAT else "invalid_body"


@dataclass(frozen=True)
class Reply:
    """A response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Sent:
    """A request as bytes. Without `length`, the true content-length is declared."""

    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    method: str = "POST"
    length: int | None = None
    chunked: bool = False

    def head(self, path: str) -> bytes:
        lines = [f"{self.method} {path} HTTP/1.1", "host: test"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        size = len(self.body) if self.length is None else self.length
        lines.append("transfer-encoding: chunked" if self.chunked else f"content-length: {size}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def bytes_for(self, path: str) -> bytes:
        if not self.chunked:
            return self.head(path) + self.body
        pieces = [self.body[at : at + 65536] for at in range(0, len(self.body), 65536)]
        return self.head(path) + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


async def _ends(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), timeout=1) == b""
    except TimeoutError:
        return False


async def exchange(address: Address, path: str, sent: Sent, *, to_the_end: bool = False) -> Reply:
    """Send, and read one response; `to_the_end` waits for the server to close the connection."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(sent.bytes_for(path))
        return await read_reply(reader, to_the_end=to_the_end)
    finally:
        writer.close()
        await writer.wait_closed()


async def read_reply(reader: asyncio.StreamReader, *, to_the_end: bool = False) -> Reply:
    """One response; `to_the_end` waits for the server to close the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    closed = to_the_end and await _ends(reader)
    return Reply(int(status.split()[1]), headers, body, closed)


SWITCHBOARD = Switchboard()
ADDRESS: list[Address] = []


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def server() -> AsyncIterator[None]:
    """One server for all of these tests; each connects its own app."""
    async with served(SWITCHBOARD) as address:
        ADDRESS.append(address)
        yield
    ADDRESS.clear()


@contextlib.asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[Address]:
    """The server, with `app` behind it."""
    SWITCHBOARD.app = app
    yield ADDRESS[0]


@dataclass
class World:
    """Fakes behind every route."""

    generator: FakeGenerator = field(default_factory=lambda: FakeGenerator([solution("42")]))
    verifier: FakeVerifier = field(default_factory=FakeVerifier)
    settings: RuntimeSettings = field(default_factory=lambda: RuntimeSettings(max_body_bytes=LIMIT))

    @property
    def app(self) -> FastAPI:
        jobs = jobs_router(Jobs(JobSettings(), self.generator, self.verifier))
        return all_in_one_app(self.generator, self.verifier, self.settings, [jobs])

    async def send(self, path: str, sent: Sent, **options: bool) -> Reply:
        app = self.app
        async with connected(app) as address:
            reply = await exchange(address, path, sent, **options)
            health = await exchange(address, "/health", Sent(method="GET"))
        assert health.status == 200
        return reply


def refused(reply: Reply, status: int, code: str | None, param: str | None = None) -> str:
    """Assert everything that holds for any refusal; returns its message."""
    error = ErrorEnvelope.model_validate_json(reply.body).error
    assert set(reply.json) == {"error"}
    assert set(reply.json["error"]) == {"type", "code", "message", "param", "request_id", "retryable"}
    assert reply.status == status
    assert code in (None, error.code)
    assert param in (None, error.param)
    assert reply.headers["x-request-id"] == error.request_id != ""
    assert reply.headers["content-type"] == "application/json"
    everything = reply.body + repr(reply.headers).encode()
    assert not any(secret in everything for secret in (CANARY.encode(), b"Traceback", b"/work", b"pydantic"))
    return error.message


def as_json(body: Any) -> Sent:
    return Sent(json.dumps(body).encode())


Make = Callable[[str], Sent]


def plain(route: str) -> bytes:
    return json.dumps(BODIES[route]).encode()


def put(route: str, name: str, value: str) -> Sent:
    """The body with `name` set to `value`, which is JSON text."""
    rest = {key: item for key, item in BODIES[route].items() if key != name}
    return Sent(json.dumps(rest)[:-1].encode() + f', "{name}": {value}}}'.encode())


def numbered(value: str) -> Make:
    return lambda route: put(route, NUMBERS[route], value)


def typed(content_type: str) -> Make:
    return lambda route: Sent(plain(route), (("content-type", content_type),))


EVERY_ROUTE: list[Any] = [
    pytest.param(lambda r: Sent(b""), 400, "invalid_json", id="1 an empty body"),
    pytest.param(lambda r: Sent(b"  \n"), 400, "invalid_json", id="1 a blank body"),
    pytest.param(lambda r: Sent(plain(r)[:-2]), 400, "invalid_json", id="2 truncated"),
    pytest.param(lambda r: Sent(plain(r) + b" x"), 400, "invalid_json", id="2 trailing garbage"),
    pytest.param(lambda r: Sent(b"null"), 422, "invalid_body", id="2 null"),
    pytest.param(lambda r: Sent(b"[]"), 422, "invalid_body", id="2 a list"),
    pytest.param(lambda r: Sent(json.dumps(CANARY).encode()), 422, "invalid_body", id="2 a string"),
    pytest.param(lambda r: Sent(plain(r) + b"\xff"), 400, "invalid_encoding", id="3 a byte that is no UTF-8"),
    pytest.param(lambda r: Sent(json.dumps(BODIES[r]).encode("utf-16")), 400, "invalid_encoding", id="3 UTF-16"),
    pytest.param(lambda r: Sent(json.dumps(BODIES[r]).encode("utf-16-le")), 400, None, id="3 UTF-16 without a mark"),
    pytest.param(lambda r: Sent(b"\xef\xbb\xbf" + plain(r)), 400, "invalid_json", id="3 a byte order mark"),
    pytest.param(lambda r: put(r, STRINGS[r], '"x\\ud800"'), 422, "invalid_unicode", id="4 a lone high surrogate"),
    pytest.param(lambda r: put(r, STRINGS[r], '"\\uDC00x"'), 422, "invalid_unicode", id="4 a lone low surrogate"),
    pytest.param(lambda r: put(r, STRINGS[r], '"\\ud800\\ud800"'), 422, "invalid_unicode", id="4 two high surrogates"),
    pytest.param(lambda r: put(r, "x\\ud800", "1"), 422, "invalid_unicode", id="4 a lone surrogate in a name"),
    *(
        pytest.param(numbered(number), 422, "not_finite", id=f"5 {number}")
        for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")
    ),
    pytest.param(lambda r: Sent(b"[" * 100_000), 400, "invalid_json", id="6 nested lists"),
    pytest.param(lambda r: put(r, NUMBERS[r], "[" * 100_000), 400, "invalid_json", id="6 nested lists in a field"),
    pytest.param(lambda r: put(r, NUMBERS[r], '{"a":' * 100_000), 400, "invalid_json", id="6 nested objects"),
    pytest.param(lambda r: put(r, NUMBERS[r], "9" * 5000), 400, "invalid_json", id="7 an int of 5,000 digits"),
    pytest.param(lambda r: put(r, "strange_field", f'"{CANARY}"'), 422, "unknown field", id="10 an unknown field"),
    pytest.param(typed("text/plain"), 415, "unsupported_media_type", id="11 text"),
    pytest.param(typed("application/x-www-form-urlencoded"), 415, "unsupported_media_type", id="11 a form"),
    pytest.param(lambda r: Sent(plain(r), ()), 415, "unsupported_media_type", id="11 no content type"),
    pytest.param(
        lambda r: Sent(b"\x1f\x8b" + plain(r), (("content-type", "application/json"), ("content-encoding", "gzip"))),
        415,
        "unsupported_media_type",
        id="12 a compressed body",
    ),
    pytest.param(
        lambda r: Sent(b"", length=LIMIT + 1), 413, "body_too_large", id="13 a declared length over the limit"
    ),
    pytest.param(lambda r: Sent(b"", length=10**18), 413, "body_too_large", id="13 a huge declared length"),
    pytest.param(
        lambda r: Sent(plain(r) + b" " * LIMIT, chunked=True), 413, "body_too_large", id="14 chunks over the limit"
    ),
]


@pytest.mark.parametrize("route", [*ROUTES, JOBS])
@pytest.mark.parametrize(("make", "status", "code"), EVERY_ROUTE)
async def test_every_route_refuses(route: str, make: Make, status: int, code: str | None) -> None:
    world = World()
    code = unknown_field_on(route) if code == "unknown field" else code
    refused(await world.send(route, make(route)), status_on(route, status), code)
    assert (world.generator.requests, world.verifier.requests) == ([], [])


def field_row(route: str, body: dict[str, Any], code: str, param: str | None, name: str) -> Any:
    return pytest.param(route, {**BODIES[route], **body}, code, param, id=f"{name} on {route}")


def chat_rows() -> list[Any]:
    user = {"role": "user", "content": CANARY}
    picture = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:1/{CANARY}"}}
    unsupported, content = "unsupported_parameter", "unsupported_content"
    rows: list[tuple[str, dict[str, Any], str, str | None]] = [
        *(("9", {"n": n}, "invalid_body", "n") for n in (True, "4", 4.0, [1])),
        *(("9", {"e2h": {"n": n}}, "invalid_body", "e2h.n") for n in (True, "4", 4.0)),
        ("10", {"e2h": {CANARY[:6]: 1}}, unsupported, f"e2h.{CANARY[:6]}"),
        ("23", {"messages": []}, "empty_problem", "messages"),
        *(
            ("23", {"messages": [{"role": "user", "content": text}]}, "empty_problem", "messages")
            for text in ("", " \n")
        ),
        ("24", {"messages": [user, {"role": "assistant", "content": CANARY}]}, content, "messages"),
        ("24", {"messages": [{"role": CANARY, "content": CANARY}]}, content, "messages.0"),
        ("24", {"messages": [{"role": "tool", "content": CANARY, "tool_call_id": "1"}, user]}, content, "messages.0"),
        ("24", {"messages": [{"role": "user", "content": [picture]}]}, content, "messages.0"),
        ("24", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, picture]}]}, content, None),
        ("24", {"messages": [{"role": "user", "content": [{"type": "input_audio", "text": "a"}]}]}, content, None),
        ("24", {"messages": [{"role": "user", "content": None}]}, content, "messages.0"),
        ("24", {"messages": [{**user, "name": CANARY}]}, content, "messages.0"),
        ("24", {"messages": [CANARY]}, "invalid_body", "messages.0"),
        ("24", {"messages": [user] * 1000}, "too_many_items", "messages"),
        *(("26", {"n": n}, "invalid_body", "n") for n in (0, -1, 1025, 10**9)),
        *(("26", {"e2h": {"n": n}}, "invalid_body", "e2h.n") for n in (0, -1, 1025, 10**9)),
        ("26", {"n": 3, "e2h": {"n": 2}}, "invalid_body", "n"),
        ("27", {"temperature": -0.1}, "invalid_body", "temperature"),
        ("27", {"temperature": 2.1}, "invalid_body", "temperature"),
        ("27", {"top_p": 0}, "invalid_body", "top_p"),
        ("27", {"top_p": 1.1}, "invalid_body", "top_p"),
        ("27", {"max_tokens": 0}, "invalid_body", "max_tokens"),
        ("27", {"max_completion_tokens": 10**7}, "invalid_body", "max_completion_tokens"),
        ("27", {"max_tokens": 9, "max_completion_tokens": 9}, "invalid_body", "max_completion_tokens"),
        ("27", {"temperature": 0, "e2h": {"n": 2}}, "identical_samples", None),
        ("27", {"seed": 1, "e2h": {"sampling": {"seed": 1}}}, "invalid_body", "e2h.sampling.seed"),
        ("28", {"e2h": {"strategy": CANARY}}, "invalid_body", "e2h.strategy"),
        ("28", {"e2h": {"aggregation": CANARY}}, "invalid_body", "e2h.aggregation"),
        ("28", {"model": "e2h/majority", "e2h": {"strategy": "weighted"}}, "invalid_body", "e2h.strategy"),
        ("28", {"model": "e2h/best_of_n", "e2h": {"early_stop": True}}, unsupported, "early_stop"),
        ("28", {"e2h": {"early_stop": CANARY}}, "invalid_body", "e2h.early_stop"),
        ("28", {"model": "e2h/beam"}, unsupported, "n"),  # the body's e2h.n
        ("28", {"model": "e2h/beam", "e2h": {"strategy": "dvts"}}, "invalid_body", "e2h.strategy"),
        ("28", {"model": "e2h/dvts", "e2h": {"search": {"expand": 0}}}, "invalid_body", "e2h.search.expand"),
        ("28", {"model": "e2h/dvts", "e2h": {"search": {"expand": 257}}}, "too_many_items", "e2h.search"),
        ("28", {"e2h": {"search": {}}}, unsupported, "search"),
        ("28", {"model": "e2h/beam", "n": 17, "e2h": {}}, "invalid_body", "n"),
        ("29", {"stream": True, "n": 2, "e2h": {"n": 2}}, unsupported, "stream"),
        ("29", {"stream_options": {"include_usage": True}}, unsupported, "stream_options"),
        *(("30", {"stop": stop}, unsupported, "stop") for stop in (["x"] * 1000, CANARY, [""])),
        *(
            ("31", {name: CANARY}, unsupported, name)
            for name in (
                "chat_template",
                "chat_template_kwargs",
                "mm_processor_kwargs",
                "logits_processors",
                "extra_body",
            )
        ),
        *(("31", {name: CANARY}, unsupported, name) for name in ("tools", "response_format", "audio", "best_of")),
        *(("31", {name: 1}, unsupported, name) for name in ("logprobs", "frequency_penalty", "top_logprobs")),
    ]
    return [
        field_row(CHAT, body, code, param, f"{row} {param} {place}")
        for place, (row, body, code, param) in enumerate(rows)
    ]


def rerank_rows(route: str) -> list[Any]:
    unsupported = "unsupported_parameter"
    rows: list[tuple[dict[str, Any], str, str]] = [
        *(({"query": query}, "empty_problem", "query") for query in ("", "  \n\t ", "\u00a0")),
        ({"documents": []}, "empty", "documents"),
        ({"documents": ["a"] * 1025}, "too_many_items", "documents"),
        ({"documents": ["a", ""]}, "empty", "documents.1.text"),
        ({"documents": [{"text": " \n"}]}, "empty", "documents.0.text"),
        ({"documents": [{"text": "a", "title": CANARY}]}, "invalid_body", "documents.0.title"),
        ({"documents": [{"title": CANARY}]}, "invalid_body", "documents.0.text"),
        ({"documents": [[CANARY]]}, "invalid_body", "documents.0"),
        ({"documents": CANARY}, "invalid_body", "documents"),
        *(({"top_n": n}, "invalid_body", "top_n") for n in (0, -1, True, "2", 2.0)),
        *(({"return_documents": value}, "invalid_body", "return_documents") for value in ("yes", 1)),
        ({"rank_fields": [CANARY, "text"]}, unsupported, "rank_fields"),
        ({"truncation": True}, unsupported, "truncation"),
        ({"max_chunks_per_doc": 10}, unsupported, "max_chunks_per_doc"),
        ({"max_tokens_per_doc": 4096}, unsupported, "max_tokens_per_doc"),
        ({"relevant_spans": {"mode": "enabled"}}, unsupported, "relevant_spans"),
        ({"priority": "high"}, "invalid_body", "priority"),
        ({"return_embeddings": True}, "invalid_body", "return_embeddings"),
    ]
    return [
        field_row(route, body, code, param, f"39 {param} {place}") for place, (body, code, param) in enumerate(rows)
    ]


def sampling_rows(route: str) -> list[Any]:
    rows = [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("max_tokens", 0),
        ("max_tokens", 10**7),
        ("seed", -1),
        ("seed", 2**63),
    ]
    return [
        field_row(route, {"sampling": {name: value}}, "invalid_body", f"sampling.{name}", f"27 {name} {value}")
        for name, value in rows
    ]


SEARCHES: list[tuple[dict[str, Any], str, str | None, str]] = [
    ({"n": 8}, "unsupported_parameter", "n", "n of a search"),
    ({"early_stop": True}, "unsupported_parameter", "early_stop", "an early stop of a search"),
    ({"aggregation": "outcome"}, "unsupported_parameter", "aggregation", "the outcome of a part"),
    ({"sampling": {"temperature": 0}}, "identical_samples", None, "27 greedy continuations"),
    ({"search": {"beam_width": 0}}, "invalid_body", "search.beam_width", "a beam of nothing"),
    ({"search": {"expand": -1}}, "invalid_body", "search.expand", "no continuation"),
    ({"search": {"beam_width": 4.0}}, "invalid_body", "search.beam_width", "9 a width is whole"),
    ({"search": {"beam_width": 64, "expand": 17}}, "too_many_items", "search", "26 too many continuations"),
    ({"search": {"max_steps": 10**9}}, "invalid_body", "search.max_steps", "26 too many steps"),
    ({"search": {"strange": CANARY}}, "invalid_body", "search.strange", "10 an unknown field of a search"),
    ({"search": [CANARY]}, "invalid_body", "search", "a list for a search"),
]


FIELDS: list[Any] = [
    *(
        field_row(route, {"n": n}, "invalid_body", "n", f"9 n is {n!r}")
        for route in (SOLVE, GENERATE, VOTE)
        for n in (True, "4", 4.0, 4.5, [1], {"a": CANARY})
    ),
    *(
        field_row(route, {"problem": problem}, "empty_problem", "problem", f"23 problem {problem!r}")
        for route in (SOLVE, SCORE, GENERATE)
        for problem in ("", "  \n\t ", "\u00a0")
    ),
    *(
        field_row(route, {"n": n}, "invalid_body", "n", f"26 n is {n}")
        for route in (SOLVE, GENERATE, VOTE)
        for n in (0, -1, 1025, 10**9)
    ),
    *sampling_rows(SOLVE),
    *sampling_rows(GENERATE),
    *chat_rows(),
    *(
        field_row(SOLVE, {"early_stop": value}, "invalid_body", "early_stop", f"9 early_stop is {value!r}")
        for value in ("true", 1, None, CANARY)
    ),
    field_row(
        SOLVE,
        {"strategy": "best_of_n", "early_stop": True},
        "unsupported_parameter",
        "early_stop",
        "best of n has no early stop",
    ),
    *(
        pytest.param(SOLVE, {"problem": CANARY, "strategy": "beam", **fields}, code, param, id=name)
        for fields, code, param, name in SEARCHES
    ),
    field_row(SOLVE, {"search": {}}, "unsupported_parameter", "search", "a search of a vote"),
    field_row(VOTE, {"strategy": "dvts"}, "invalid_body", "strategy", "no search among given candidates"),
    field_row(SOLVE, {"stream": "yes"}, "invalid_body", "stream", "9 stream"),
    field_row(SOLVE, {"model": "../../etc"}, "invalid_body", "model", "32 a model"),
    *rerank_rows(RERANK),
    *rerank_rows(RERANK_V2),
    *(
        field_row(route, {"n": 2, "sampling": {"temperature": 0}}, "identical_samples", None, "27 n greedy samples")
        for route in (SOLVE, GENERATE)
    ),
    field_row(GENERATE, {"sampling": {"stop": ["x"] * 1000}}, "too_many_items", "sampling.stop", "30 1,000 stops"),
    field_row(
        GENERATE, {"sampling": {"stop": [CANARY * 90_000]}}, "invalid_body", "sampling.stop.0", "30 a stop of 1 MB"
    ),
    field_row(GENERATE, {"sampling": {"stop": [""]}}, "invalid_body", "sampling.stop.0", "30 an empty stop"),
    field_row(SOLVE, {"generator_url": f"http://{CANARY}"}, "invalid_body", "generator_url", "31 a url"),
    *(
        field_row(route, {name: [CANARY]}, "invalid_body", name, f"31 {name}")
        for route in (SOLVE, GENERATE, SCORE)
        for name in (
            "chat_template",
            "chat_template_kwargs",
            "mm_processor_kwargs",
            "logits_processors",
            "extra_body",
        )
    ),
    *(
        field_row(route, {"sampling": {name: CANARY}}, "invalid_body", f"sampling.{name}", f"31 {name} of sampling")
        for route in (SOLVE, GENERATE)
        for name in ("logits_processors", "chat_template")
    ),
    field_row(SCORE, {"solutions": []}, "empty", "solutions", "34 no solutions"),
    field_row(SCORE, {"solutions": [{"text": "a"}] * 10_001}, "too_many_items", "solutions", "34 10,001 solutions"),
    field_row(SCORE, {"solutions": [{"text": ""}]}, "empty", "solutions.0.text", "34 an empty solution"),
    field_row(SCORE, {"solutions": [{"text": " \n"}]}, "empty", "solutions.0.text", "34 a blank solution"),
    field_row(SCORE, {"solutions": [{"steps": []}]}, "empty", "solutions.0.steps", "35 no steps"),
    field_row(SCORE, {"solutions": [{"steps": ["a", ""]}]}, "empty", "solutions.0.steps.1", "35 an empty step"),
    field_row(
        SCORE, {"solutions": [{"steps": ["a"] * 10_000}]}, "too_many_items", "solutions.0.steps", "35 10,000 steps"
    ),
    field_row(
        SCORE, {"solutions": [{"steps": [CANARY], "text": CANARY}]}, "invalid_body", "solutions.0", "35 steps and text"
    ),
    field_row(SCORE, {"solutions": [{}]}, "invalid_body", "solutions.0", "35 neither steps nor text"),
    field_row(GRADE, {"pairs": []}, "empty", "pairs", "34 no pairs"),
    field_row(GRADE, {"pairs": [{"gold": "", "pred": ""}] * 1025}, "too_many_items", "pairs", "34 1,025 pairs"),
    field_row(VOTE, {"candidates": []}, "empty", "candidates", "34 no candidates"),
    field_row(VOTE, {"candidates": [{}] * 1025}, "too_many_items", "candidates", "34 1,025 candidates"),
    field_row(VOTE, {"candidates": [{"score": 1.1}]}, "invalid_body", "candidates.0.score", "a score over one"),
]


@pytest.mark.parametrize(("route", "body", "code", "param"), FIELDS)
async def test_a_field_out_of_bounds_is_refused_by_its_name(
    route: str, body: dict[str, Any], code: str, param: str | None
) -> None:
    world = World()
    refused(await world.send(route, as_json(body)), status_on(route, 422), code, param)
    assert (world.generator.requests, world.verifier.requests) == ([], [])


@pytest.mark.parametrize("route", [SOLVE, VOTE])
@pytest.mark.parametrize(
    ("name", "allowed"),
    [("strategy", ["weighted", "best_of_n", "majority"]), ("aggregation", ["prod", "min", "mean", "last", "outcome"])],
)
async def test_28_an_unknown_choice_is_told_the_choices(route: str, name: str, allowed: list[str]) -> None:
    message = refused(await World().send(route, as_json({**BODIES[route], name: CANARY})), 422, "invalid_body", name)
    assert all(word in message for word in allowed)


@pytest.mark.parametrize("route", ROUTES)
async def test_10_an_unknown_field_is_named_as_far_as_a_name_may_go(route: str) -> None:
    status = status_on(route, 422)
    assert "strange" in refused(await World().send(route, put(route, "strange", "1")), status, None, "strange")
    long = refused(await World().send(route, put(route, "s\\r\\n\\u001b[31m" * 1000, "1")), status, None)
    assert len(long) < 300
    assert long.isprintable()


@pytest.mark.parametrize("route", ROUTES)
async def test_many_faults_make_no_long_answer(route: str) -> None:
    many = {**BODIES[route], **{f"f{k}": CANARY for k in range(5000)}}
    assert len(refused(await World().send(route, as_json(many)), status_on(route, 422), None)) < 2000


@pytest.mark.parametrize(
    "sent",
    [Sent(b"", length=LIMIT + 1), Sent(b"x" * (LIMIT + 1), chunked=True)],
    ids=["13 declared", "14 chunked"],
)
async def test_after_a_body_that_is_too_large_the_connection_is_closed(sent: Sent) -> None:
    reply = await World().send(SCORE, sent, to_the_end=True)
    refused(reply, 413, "body_too_large")
    assert reply.closed


@pytest.mark.parametrize("model", ["gpt-4o", "../../etc", f"http://127.0.0.1:1/{CANARY}", "e2h/search", "E2H", ""])
async def test_32_a_model_that_is_not_served_is_not_found(model: str) -> None:
    world = World()
    refused(await world.send(CHAT, as_json({**BODIES[CHAT], "model": model})), 404, "model_not_found", "model")
    assert world.generator.requests == []


# --- what is accepted all the same -----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
async def test_json_is_json_however_its_type_is_spelled(route: str, content_type: str) -> None:
    reply = await World().send(route, typed(content_type)(route))
    assert reply.status == 200


@pytest.mark.parametrize("route", ROUTES)
async def test_a_chunked_body_within_the_limit_is_read(route: str) -> None:
    assert (await World().send(route, Sent(plain(route), chunked=True))).status == 200


@pytest.mark.parametrize(
    "text",
    ["\u202e\u200b\x00", "e" + "\u0301" * 1000, "\U0001f600", "a" * 10**6],
    ids=["marks", "combining", "emoji", "long"],
)
@pytest.mark.parametrize("route", [SOLVE, SCORE, GENERATE, RERANK])
async def test_38_strange_text_is_text(route: str, text: str) -> None:
    assert (await World().send(route, as_json({**BODIES[route], STRINGS[route]: text}))).status == 200


@pytest.mark.parametrize("route", [SOLVE, GENERATE])
async def test_8_of_a_key_that_stands_twice_the_last_counts(route: str) -> None:
    world = World()
    body = plain(route)[:-1] + b', "n": 64, "n": 2}'
    assert (await world.send(route, Sent(body))).status == 200
    assert [request.n for request in world.generator.requests] == [2]
    refused(await world.send(route, Sent(plain(route)[:-1] + b', "n": 2, "n": 0}')), 422, "invalid_body", "n")


async def test_39_a_ranking_of_more_than_there_is_is_all_there_is() -> None:
    reply = await World().send(RERANK, as_json({**BODIES[RERANK], "documents": ["a", "b"], "top_n": 10**9}))
    assert (reply.status, len(reply.json["results"])) == (200, 2)


# --- paths and methods -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("route", ROUTES)
async def test_19_another_method_is_told_the_right_one(route: str, method: str) -> None:
    reply = await World().send(route, Sent(method=method))
    refused(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "//v1/solve", "/v1/../metrics", "/v1/solve/", "/V1/solve", f"/{CANARY}", "/%00", "/v1/solve%2f"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_19_an_unknown_path_is_not_found(path: str, method: str) -> None:
    refused(await World().send(path, Sent(method=method)), 404, "not_found")


# --- request ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("x" * 10_000, id="10 kB"),
        pytest.param("\x1b[31mred", id="an escape sequence"),
        pytest.param("a b", id="a blank"),
        pytest.param("", id="nothing"),
        pytest.param("id\xe9", id="a byte beyond ASCII"),
        pytest.param('{"a":1}', id="JSON"),
    ],
)
async def test_20_a_request_id_out_of_order_is_replaced(given: str) -> None:
    reply = await World().send("/health", Sent(method="GET", headers=(("x-request-id", given),)))
    # The parser itself may refuse the header, with an answer of its own.
    assert reply.status in (200, 400)
    assert reply.status == 400 or (len(reply.headers["x-request-id"]) == 32 and reply.headers["x-request-id"].isalnum())


async def test_20_a_request_id_with_a_line_end_makes_no_header() -> None:
    sent = Sent(method="GET", headers=(("x-request-id", "good\r\nx-forged: yes"),))
    reply = await World().send("/health", sent)
    assert "x-forged" not in reply.headers
    assert reply.headers["x-request-id"] == "good"


async def test_20_a_decent_request_id_is_kept() -> None:
    sent = Sent(b"{", (("content-type", "application/json"), ("x-request-id", "req-1.a_B")))
    reply = await World().send(SOLVE, sent)
    assert (reply.headers["x-request-id"], reply.json["error"]["request_id"]) == ("req-1.a_B", "req-1.a_B")


# --- faults of the services behind -----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [SOLVE, GENERATE, CHAT])
async def test_25_a_problem_over_the_context_is_told_count_and_limit(route: str) -> None:
    fault = ContextLengthExceeded("the prompt has 900 tokens; the generator's context is 512", param="problem")
    world = World(generator=FakeGenerator(["x"], failure=fault))
    reply = await world.send(route, as_json(BODIES[route]))
    message = refused(reply, status_on(route, 422), "context_length_exceeded", "problem")
    assert "900" in message
    assert "512" in message


@pytest.mark.parametrize("route", [SOLVE, GENERATE, CHAT])
@pytest.mark.parametrize(
    ("fault", "status"), [(Overloaded("full", retry_after_s=9.0), 429), (NotReady("loading"), 503)]
)
async def test_a_fault_that_passes_says_when_to_come_again(route: str, fault: Any, status: int) -> None:
    world = World(generator=FakeGenerator(["x"], failure=fault))
    reply = await world.send(route, as_json(BODIES[route]))
    refused(reply, status, fault.code)
    assert reply.json["error"]["retryable"] is True
    assert 1 <= int(reply.headers["retry-after"]) <= 11
    assert reply.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", [SOLVE, GENERATE, CHAT])
async def test_a_bug_of_ours_is_an_envelope_without_its_text(route: str, stream: bool) -> None:
    world = World(generator=FakeGenerator(["x"], failure=RuntimeError(CANARY)))  # type: ignore[arg-type]
    refused(await world.send(route, as_json({**BODIES[route], "stream": stream})), 500, "internal")


# --- operations ------------------------------------------------------------------------------------------------------


async def test_a_caller_who_leaves_amid_the_body_is_no_error_of_ours() -> None:
    async with connected(all_in_one_app(FakeGenerator(["x"]), FakeVerifier())) as address:
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(Sent(b'{"problem"', length=1000).bytes_for(SOLVE))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        text = b""

        async def counted() -> bool:
            nonlocal text
            text = (await exchange(address, "/metrics", Sent(method="GET"))).body
            return b'route="/v1/solve"' in text

        for _ in range(100):
            if await counted():
                break
    assert b'route="/v1/solve"' in text
    assert b'status="5xx"' not in text


async def test_metrics_have_series_for_routes_and_none_for_strange_paths() -> None:
    async with connected(all_in_one_app(FakeGenerator([solution("42")]), FakeVerifier())) as address:
        for path in ("/canary-1", "/canary-2", "/v1/solve/canary-3", "/canary?x=4"):
            await exchange(address, path, Sent(method="GET"))
        await exchange(address, SOLVE, Sent(method="GET"))
        await exchange(address, SOLVE, as_json({"problem": "p", "n": 1}))
        reply = await exchange(address, "/metrics", Sent(method="GET"))
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/plain")
    assert "canary" not in text
    assert 'e2h_http_requests_total{method="GET",route="other",status="4xx"} 4.0' in text
    assert 'e2h_http_requests_total{method="POST",route="/v1/solve",status="2xx"} 1.0' in text
    assert 'e2h_solves_total{degraded="no",partial="false",strategy="weighted"} 1.0' in text
    assert 'e2h_solve_candidates_total{part="voted"} 1.0' in text


async def test_health_says_that_the_process_lives() -> None:
    reply = await World().send("/health", Sent(method="GET"))
    assert (reply.status, reply.json) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("generator", "verifier", "status", "body"),
    [
        pytest.param(None, None, 200, {"status": "ready", "reason": None, "degraded": []}, id="ready"),
        pytest.param("g died", None, 503, {"status": "not_ready", "reason": "g died", "degraded": []}, id="generator"),
        pytest.param(None, "v died", 503, {"status": "not_ready", "reason": "v died", "degraded": []}, id="verifier"),
    ],
)
async def test_ready_says_whether_it_takes_work_and_why_not(
    generator: str | None, verifier: str | None, status: int, body: dict[str, Any]
) -> None:
    world = World(FakeGenerator(["x"], not_ready=generator), FakeVerifier(not_ready=verifier))
    reply = await world.send("/ready", Sent(method="GET"))
    assert (reply.status, reply.json) == (status, body)
    assert ("retry-after" in reply.headers) == (status == 503)


async def _openapi() -> Any:
    return (await World().send("/openapi.json", Sent(method="GET"))).json


async def test_every_reference_of_the_openapi_page_is_defined() -> None:
    document = await _openapi()
    text = json.dumps(document)
    wanted = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert wanted <= set(document["components"]["schemas"])
    requests = {"SolveRequest", "VoteRequest", "ScoreRequest", "GenerateRequest", "RerankRequest"}
    assert requests | {"ErrorEnvelope"} <= wanted


@pytest.mark.parametrize("route", ROUTES)
async def test_the_example_of_a_route_runs_and_its_refusals_are_described(route: str) -> None:
    operation = (await _openapi())["paths"][route]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    assert (await World().send(route, as_json(example))).status == 200
    assert {"400", "413", "415", str(status_on(route, 422))} <= set(operation["responses"])


async def test_a_stream_whose_reader_leaves_stops_the_samples() -> None:
    generator = FakeGenerator(["x"], holds={1: asyncio.Event()})
    async with connected(all_in_one_app(generator, FakeVerifier())) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(as_json({"problem": "p", "n": 2, "stream": True}).bytes_for(GENERATE))
        assert b"event: completion" in await reader.readuntil(b"data:")
        writer.close()
        assert await eventually(lambda: generator.cancelled == 1)


@pytest.mark.parametrize("value", ["-1", "0", "abc", "1.5", ""])
async def test_a_time_budget_that_is_none_is_refused(value: str) -> None:
    headers = (("content-type", "application/json"), ("x-request-timeout-ms", value))
    refused(await World().send("/v1/solve", Sent(b"{}", headers)), 422, "invalid_body", "x-request-timeout-ms")


async def test_a_class_that_is_none_is_refused() -> None:
    headers = (("content-type", "application/json"), ("x-priority", "urgent"))
    refused(await World().send("/v1/score", Sent(b"{}", headers)), 422, "invalid_body", "x-priority")


# --- what is too slow, too large, or no HTTP -------------------------------------------------------------------------

JSON_HEADER = ("content-type", "application/json")


async def raw(address: Address, *pieces: bytes, pause_s: float = 0.0) -> Reply:
    """The response to these bytes; `closed` says whether the server then let go of the connection."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause_s)
        return await read_reply(reader, to_the_end=True)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):  # what it had not read was sent in vain
            await writer.wait_closed()


@pytest.mark.parametrize("route", ROUTES)
async def test_15_a_slow_body_is_refused_and_others_are_served_meanwhile(route: str) -> None:
    world = World(settings=RuntimeSettings(body_timeout_s=0.3))
    async with connected(world.app) as address:
        slow = asyncio.create_task(raw(address, Sent(plain(route)[:3], length=1000).bytes_for(route), b"a", b"b"))
        assert (await exchange(address, route, Sent(plain(route)))).status == 200
        assert not slow.done()
        reply = await slow
    refused(reply, 408, "request_too_slow")
    assert reply.closed


async def test_15_slow_headers_are_refused() -> None:
    async with served(World().app, RuntimeSettings(body_timeout_s=0.3)) as address:
        reply = await raw(address, b"POST /v1/solve HTTP/1.1\r\nhost: test\r\nx-a: ")
        refused(reply, 408, "request_too_slow")
        assert reply.closed
        assert (await exchange(address, "/health", Sent(method="GET"))).status == 200


async def test_15_a_connection_that_says_nothing_is_closed() -> None:
    async with served(World().app, RuntimeSettings(body_timeout_s=0.2)) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        assert await reader.read() == b""
        writer.close()


async def test_15_the_rest_of_a_body_that_nobody_reads_holds_no_connection() -> None:
    async with served(World().app, keep_alive_s=1) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(Sent(b"{", length=1000).bytes_for("/nowhere"))
        refused(await read_reply(reader), 404, "not_found")

        async def dribble() -> None:
            while True:  # uvicorn's own timer would begin again with each byte
                writer.write(b"x")
                await asyncio.sleep(0.1)

        dribbling = asyncio.create_task(dribble())
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), timeout=30) == b""
        dribbling.cancel()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((("x-long", CANARY * 6000),), id="one header"),
        pytest.param(tuple((f"x-{k}", CANARY) for k in range(1000)), id="1,000 headers"),
        pytest.param(tuple((f"x-{k}", "y" * 1000) for k in range(100)), id="100 kB of headers"),
    ],
)
async def test_16_headers_beyond_the_bound_are_refused(headers: tuple[tuple[str, str], ...]) -> None:
    world = World()
    async with connected(world.app) as address:
        reply = await raw(address, Sent(plain(SOLVE), (JSON_HEADER, *headers)).bytes_for(SOLVE))
        refused(reply, 431, "headers_too_large")
        assert reply.closed
        assert (await exchange(address, "/health", Sent(method="GET"))).status == 200
    assert world.generator.requests == []


async def test_16_a_header_that_does_not_end_is_refused() -> None:
    async with connected(World().app) as address:
        head = b"POST /v1/solve HTTP/1.1\r\nhost: test\r\nx-a: "
        refused(await raw(address, head, *([b"y" * 40_000] * 3), pause_s=0.02), 431, "headers_too_large")


async def test_16_a_path_beyond_the_bound_is_refused() -> None:
    refused(await World().send("/v1/" + "y" * 70_000, Sent(method="GET")), 431, "headers_too_large")


async def test_16_headers_within_the_bound_are_read() -> None:
    headers = (JSON_HEADER, *((f"x-{k}", "y" * 500) for k in range(100)))
    async with connected(World().app) as address:
        pieces = Sent(plain(SOLVE), headers).bytes_for(SOLVE)
        assert (await raw(address, pieces[:40_000], pieces[40_000:], pause_s=0.02)).status == 200


async def test_16_what_follows_a_chunked_body_is_no_header() -> None:
    trailers = b"0\r\nx-request-timeout-ms: abc\r\n\r\n"
    sent = Sent(plain(SOLVE), chunked=True).bytes_for(SOLVE).replace(b"0\r\n\r\n", trailers)
    async with connected(World().app) as address:
        assert (await raw(address, sent)).status == 200


@pytest.mark.parametrize(
    "text", [CANARY.encode() + b"\r\n\r\n", b"\x16\x03\x01\x02\x00", b"POST /v1/solve HTTP/1.1\r\n\x00bad: x\r\n\r\n"]
)
async def test_what_is_no_http_is_told_so(text: bytes) -> None:
    async with connected(World().app) as address:
        refused(await raw(address, text), 400, "invalid_http")


# --- time budgets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "told"), [("1000000000000", "3600000"), ("3600000", None), ("5000", None)])
async def test_21_a_budget_that_was_clamped_is_reported(asked: str, told: str | None) -> None:
    reply = await World().send(SOLVE, Sent(plain(SOLVE), (JSON_HEADER, ("x-request-timeout-ms", asked))))
    assert (reply.status, reply.headers.get("x-request-timeout-ms")) == (200, told)


@pytest.mark.parametrize("route", ROUTES)
async def test_22_a_budget_that_ran_out_starts_no_work(route: str) -> None:
    world = World()
    sent = Sent(plain(route), (JSON_HEADER, ("x-request-timeout-ms", "50")))
    async with connected(world.app) as address:
        reply = await raw(address, sent.head(route), b"", pause_s=0.1)
    refused(reply, 504, "deadline_exceeded")
    assert (world.generator.requests, world.verifier.requests) == ([], [])


async def test_a_pipelined_request_does_not_inherit_the_budget_of_the_one_before_it() -> None:
    hurried = Sent(plain(VOTE), (JSON_HEADER, ("x-request-timeout-ms", "200"))).bytes_for(VOTE)
    async with connected(World().app) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(hurried + Sent(plain(VOTE)).head(VOTE))
        assert (await read_reply(reader)).status == 200
        await asyncio.sleep(0.3)
        writer.write(plain(VOTE))
        assert (await read_reply(reader)).status == 200
        writer.close()
        await writer.wait_closed()


# --- what a browser is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/openapi.json", "/nowhere", "/docs", SOLVE])
async def test_no_answer_may_be_sniffed_kept_or_framed(path: str) -> None:
    headers = (await World().send(path, Sent(method="GET"))).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert ("script-src" in policy) == (path == "/docs")


async def test_series_of_metrics_do_not_grow_with_what_strangers_ask() -> None:
    methods = ["GET", "POST", "PROPFIND", "M-SEARCH", "PURGE"]
    async with connected(World().app) as address:

        async def series(asked: range) -> int:
            for k in asked:
                await exchange(address, f"/{CANARY}/{k}?q={k}", Sent(method=methods[k % len(methods)]))
            text = (await exchange(address, "/metrics", Sent(method="GET"))).body.decode()
            assert CANARY not in text
            return sum(not line.startswith("#") for line in text.splitlines())

        await series(range(1))  # the series of /metrics itself come into being with the first answer
        assert await series(range(10)) == await series(range(10, 200))

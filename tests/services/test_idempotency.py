"""`Idempotency-Key` over real sockets: one execution, one answer, for as long as the answer is kept."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.core.errors import NotReady, Overloaded, UpstreamContract
from services.generator.api import generator_router
from services.orchestrator.api.chat import chat_router
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.solver import Solver
from services.runtime.app import Lifecycle
from services.runtime.settings import RuntimeSettings
from services.verifier.api import verifier_router
from tests.fakes import FakeGenerator, FakeVerifier, InlineGrader, solution
from tests.services.test_auth import gate
from tests.services.test_bad_inputs import BODIES, CHAT, SOLVE, Sent, exchange, plain, refused
from tests.serving import Address, all_in_one_app, eventually, served, serving_app
from tests.stores import redis_server, server_binaries

KEYED = [SOLVE, CHAT]
JSON_HEADER = ("content-type", "application/json")


def keyed(route: str, key: str = "a-key", **changes: Any) -> Sent:
    return Sent(json.dumps({**BODIES[route], **changes}).encode(), (JSON_HEADER, ("idempotency-key", key)))


def app_of(generator: FakeGenerator, **settings: Any) -> FastAPI:
    return all_in_one_app(generator, FakeVerifier(), RuntimeSettings(**settings))


@contextlib.asynccontextmanager
async def behind(generator: FakeGenerator, **settings: Any) -> AsyncIterator[Address]:
    app = app_of(generator, **settings)
    async with app.router.lifespan_context(app), served(app) as address:
        yield address


def generator(**fields: Any) -> FakeGenerator:
    return FakeGenerator([solution("42")], **fields)


def solver() -> Solver:
    return Solver(generator(), FakeVerifier(), InlineGrader(), SolveMetrics(CollectorRegistry()))


async def outcomes(address: Address) -> dict[str, float]:
    text = (await exchange(address, "/metrics", Sent(method="GET"))).body.decode()
    lines = (line for line in text.splitlines() if line.startswith("e2h_idempotent_requests_total{"))
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}


async def until_asked(address: Address, requests: int) -> None:
    """Returns when so many requests with a key have been looked at."""
    for _ in range(1000):
        if sum((await outcomes(address)).values()) >= requests:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(await outcomes(address))


@pytest.mark.parametrize("route", KEYED)
async def test_twenty_at_once_are_executed_once_and_answered_alike(route: str) -> None:
    hold = asyncio.Event()
    engine = generator(holds={0: hold})
    async with behind(engine) as address:
        asking = [asyncio.create_task(exchange(address, route, keyed(route))) for _ in range(20)]
        await until_asked(address, 20)
        hold.set()
        replies = await asyncio.gather(*asking)
        again = await exchange(address, route, keyed(route))
        counted = await outcomes(address)
    assert {reply.status for reply in (*replies, again)} == {200}
    assert len({reply.body for reply in (*replies, again)}) == 1
    assert len({reply.headers["x-request-id"] for reply in replies}) == 20
    assert len(engine.requests) == 1
    assert counted == {"executed": 1, "joined": 19, "replayed": 1}
    assert (
        again.headers["idempotent-replayed"],
        [r.headers.get("idempotent-replayed") for r in replies].count(None),
    ) == (
        "true",
        1,
    )


@pytest.mark.parametrize("route", KEYED)
async def test_another_body_under_the_same_key_is_refused(route: str) -> None:
    hold = asyncio.Event()
    engine = generator(holds={0: hold})
    changed = keyed(route, **({"problem": "another"} if route == SOLVE else {"seed": 5}))
    async with behind(engine) as address:
        first = asyncio.create_task(exchange(address, route, keyed(route)))
        assert await eventually(lambda: len(engine.requests) == 1)
        amid = await exchange(address, route, changed)
        hold.set()
        assert (await first).status == 200
        after = await exchange(address, route, changed)
    for reply in (amid, after):
        refused(reply, 422, "idempotency_mismatch", "idempotency-key")
    assert len(engine.requests) == 1


async def test_the_same_request_may_be_spelled_otherwise() -> None:
    engine = generator()
    async with behind(engine) as address:
        spelled = Sent(json.dumps(BODIES[SOLVE], indent=4).encode(), keyed(SOLVE).headers)
        assert (await exchange(address, SOLVE, keyed(SOLVE))).body == (await exchange(address, SOLVE, spelled)).body
    assert len(engine.requests) == 1


async def test_keys_are_of_a_route_and_without_one_every_request_is_new() -> None:
    engine = generator()
    async with behind(engine) as address:
        for route in (SOLVE, CHAT):
            assert (await exchange(address, route, keyed(route))).status == 200
        for _ in range(2):
            assert (await exchange(address, SOLVE, Sent(plain(SOLVE)))).status == 200
    assert len(engine.requests) == 4


async def test_keys_are_of_a_tenant(tmp_path: Path) -> None:
    async with gate(tmp_path / "keys.json") as door:
        first, second, other = door.key("solve"), door.key("solve"), door.key("solve", tenant="other")
        await asyncio.sleep(0.3)
        replies = []
        for key in (first, second, other):
            sent = Sent(plain(SOLVE), (*keyed(SOLVE).headers, ("authorization", f"Bearer {key}")))
            replies.append(await exchange(door.address, SOLVE, sent))
    assert [reply.status for reply in replies] == [200] * 3
    assert replies[0].body == replies[1].body != replies[2].body
    assert len(door.generator.requests) == 2


@pytest.mark.parametrize(
    "fault", [Overloaded("full"), NotReady("loading"), UpstreamContract("nonsense")], ids=lambda fault: fault.code
)
async def test_a_failure_is_not_kept(fault: Any) -> None:
    engine = generator(failure=fault)
    async with behind(engine) as address:
        refused(await exchange(address, SOLVE, keyed(SOLVE)), fault.status, fault.code)
        engine.failure = None
        assert (await exchange(address, SOLVE, keyed(SOLVE))).status == 200
        assert (await exchange(address, SOLVE, keyed(SOLVE, n=2))).status == 422
    assert len(engine.requests) == 2


async def test_a_caller_who_leaves_stops_the_work_unless_another_waits_for_it() -> None:
    hold = asyncio.Event()
    engine = generator(holds={0: hold})
    async with behind(engine) as address:
        writers = []
        for asked in (1, 2):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(keyed(SOLVE).bytes_for(SOLVE))
            writers.append(writer)
            await until_asked(address, asked)
        assert await eventually(lambda: len(engine.requests) == 1)
        writers[0].close()  # whose request it was that began the work
        await asyncio.sleep(0.2)
        assert engine.cancelled == 0
        writers[1].close()
        assert await eventually(lambda: engine.cancelled == 1)
        hold.set()
        assert (await exchange(address, SOLVE, keyed(SOLVE))).status == 200
    assert len(engine.requests) == 2


async def test_who_waits_for_anothers_work_waits_no_longer_than_the_own_budget() -> None:
    hold = asyncio.Event()
    engine = generator(holds={0: hold})
    hurried = Sent(plain(SOLVE), (*keyed(SOLVE).headers, ("x-request-timeout-ms", "300")))
    async with behind(engine) as address:
        first = asyncio.create_task(exchange(address, SOLVE, keyed(SOLVE)))
        assert await eventually(lambda: len(engine.requests) == 1)
        refused(await exchange(address, SOLVE, hurried), 504, "deadline_exceeded")
        hold.set()
        assert (await first).status == 200


@pytest.mark.parametrize("route", KEYED)
@pytest.mark.parametrize(
    "key", ["", "a b", "x" * 256, "k\u00e9y", "a\tb"], ids=["none", "blank", "long", "accent", "tab"]
)
async def test_what_is_no_key_is_refused(route: str, key: str) -> None:
    engine = generator()
    async with behind(engine) as address:
        refused(await exchange(address, route, keyed(route, key)), 422, "invalid_body", "idempotency-key")
        two = Sent(plain(route), (*keyed(route).headers, ("idempotency-key", "another")))
        refused(await exchange(address, route, two), 422, "invalid_body", "idempotency-key")
    assert engine.requests == []


@pytest.mark.parametrize(("route", "status"), [(SOLVE, 422), (CHAT, 400)])
async def test_a_stream_takes_no_key(route: str, status: int) -> None:
    async with behind(generator()) as address:
        reply = await exchange(address, route, keyed(route, stream=True))
    refused(reply, status, "unsupported_parameter", "idempotency-key")


async def test_answers_are_forgotten_oldest_first_when_there_is_no_room() -> None:
    engine = generator()
    async with behind(engine, idempotency_max_bytes=24 * 1024) as address:
        size = len((await exchange(address, SOLVE, keyed(SOLVE, "0"))).body)
        assert 512 < size < 2500  # some of them find room, each less than an eighth of it
        for k in range(1, 31):
            await exchange(address, SOLVE, keyed(SOLVE, str(k)))
        assert len(engine.requests) == 31
        await exchange(address, SOLVE, keyed(SOLVE, "30"))
        assert len(engine.requests) == 31
        await exchange(address, SOLVE, keyed(SOLVE, "0"))
        assert len(engine.requests) == 32


async def test_an_answer_too_large_to_keep_is_still_one_execution_for_those_who_wait() -> None:
    hold = asyncio.Event()
    engine = FakeGenerator([solution("42", "x" * 4000)], holds={0: hold})
    async with behind(engine, idempotency_max_bytes=8192) as address:
        asking = [asyncio.create_task(exchange(address, SOLVE, keyed(SOLVE))) for _ in range(2)]
        await until_asked(address, 2)
        hold.set()
        assert len({reply.body for reply in await asyncio.gather(*asking)}) == 1
        assert (await exchange(address, SOLVE, keyed(SOLVE))).status == 200
    assert len(engine.requests) == 2


async def test_answers_are_forgotten_after_their_time() -> None:
    engine = generator()
    async with behind(engine, idempotency_ttl_s=0.5) as address:
        await exchange(address, SOLVE, keyed(SOLVE))
        await asyncio.sleep(0.7)
        await exchange(address, SOLVE, keyed(SOLVE))
    assert len(engine.requests) == 2


async def test_another_process_knows_the_answer_through_redis(tmp_path: Path) -> None:
    one, other = generator(), generator()
    with redis_server(server_binaries()["valkey"], tmp_path, "a-password") as store:
        given = {"redis_url": SecretStr(store.url)}
        async with behind(one, **given) as first, behind(other, **given) as second:
            answer = await exchange(first, SOLVE, keyed(SOLVE))
            again = await exchange(second, SOLVE, keyed(SOLVE))
            refused(await exchange(second, SOLVE, keyed(SOLVE, n=2)), 422, "idempotency_mismatch")
            assert (await exchange(second, "/ready", Sent(method="GET"))).json["degraded"] == []
    assert answer.body == again.body
    assert again.headers["idempotent-replayed"] == "true"
    assert (len(one.requests), len(other.requests)) == (1, 0)


async def test_a_redis_that_is_gone_or_holds_nonsense_is_done_without(tmp_path: Path) -> None:
    engine = generator()
    with redis_server(server_binaries()["valkey"], tmp_path) as store:
        async with behind(engine, redis_url=SecretStr(store.url)) as address:
            await exchange(address, SOLVE, keyed(SOLVE))
            with redis.Redis.from_url(store.url) as client:
                (name,) = client.scan_iter("e2h:idempotency:*")
                assert 86_000 < int(client.ttl(name)) <= 86_400
                client.set(name, b'{"v": 2}')
            async with behind(engine, redis_url=SecretStr(store.url)) as second:
                assert (await exchange(second, SOLVE, keyed(SOLVE))).status == 200
                assert len(engine.requests) == 2
                store.kill()
                assert (await exchange(second, SOLVE, keyed(SOLVE, "new"))).status == 200
                assert (await exchange(second, SOLVE, keyed(SOLVE, "new"))).status == 200
                degraded = (await exchange(second, "/ready", Sent(method="GET"))).json["degraded"]
    assert len(engine.requests) == 3
    assert any("idempotency" in part for part in degraded)


async def test_a_redis_that_hangs_costs_its_time_out_once() -> None:
    asked = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    store = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = SecretStr(f"redis://127.0.0.1:{store.sockets[0].getsockname()[1]}/0")
    async with behind(generator(), redis_url=url, redis_timeout_ms=50.0) as address:
        for k in range(3):
            assert (await exchange(address, SOLVE, keyed(SOLVE, str(k)))).status == 200
    assert asked == 1
    store.close()


@pytest.mark.parametrize(
    ("router", "keeps"),
    [
        pytest.param(generator_router(generator()), False, id="a generator"),
        pytest.param(verifier_router(FakeVerifier()), False, id="a verifier"),
        pytest.param(chat_router(solver()), True, id="an orchestrator"),
    ],
)
async def test_where_no_route_takes_a_key_no_answers_are_kept_and_their_redis_is_not_asked(
    router: APIRouter, keeps: bool
) -> None:
    nowhere = RuntimeSettings(redis_url=SecretStr("redis://127.0.0.1:1/0"))
    app = serving_app([router], Lifecycle(), settings=nowhere)
    async with app.router.lifespan_context(app), served(app) as address:
        degraded = (await exchange(address, "/ready", Sent(method="GET"))).json["degraded"]
        counted = (await exchange(address, "/metrics", Sent(method="GET"))).body
    assert [part.partition(":")[0] for part in degraded] == [*(["idempotency"] if keeps else []), "rate limits"]
    assert (b"e2h_idempotency" in counted) is keeps

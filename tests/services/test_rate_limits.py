"""Rates: windows of tenants, keys and addresses; counted together in a real redis, and alone when it is gone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.core.errors import RateLimited
from services.runtime.addresses import network_of
from services.runtime.keys import change_keys, new_key, parse_rate
from services.runtime.limits import RateLimiter
from services.runtime.settings import RuntimeSettings
from tests.fakes import FakeGenerator, FakeVerifier
from tests.services.test_auth import gate
from tests.services.test_bad_inputs import SCORE, Sent, exchange, plain, refused
from tests.serving import all_in_one_app, served
from tests.stores import RedisServer, redis_server, server_binaries

RATE = parse_rate("3/minute")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(server_binaries()["valkey"], tmp_path_factory.mktemp("redis"), "a-password") as server:
        yield server


class Limiters:
    """Rate limiters that are closed at the end."""

    def __init__(self) -> None:
        self.made: list[RateLimiter] = []

    def make(self, url: str | None = None, registry: CollectorRegistry | None = None, **settings: Any) -> RateLimiter:
        given = RuntimeSettings(redis_url=None if url is None else SecretStr(url), **settings)
        self.made.append(RateLimiter(given, registry or CollectorRegistry()))
        return self.made[-1]


@pytest.fixture
async def limiters() -> AsyncIterator[Limiters]:
    made = Limiters()
    yield made
    for limiter in made.made:
        await limiter.close()


async def admitted(limiter: RateLimiter, name: str, times: int = 1) -> list[bool]:
    told = []
    for _ in range(times):
        try:
            await limiter.admit(RATE, name)
            told.append(True)
        except RateLimited:
            told.append(False)
    return told


async def test_a_window_takes_its_number_and_no_more(limiters: Limiters) -> None:
    limiter = limiters.make()
    assert await admitted(limiter, "a", 5) == [True, True, True, False, False]
    assert await admitted(limiter, "b") == [True]


async def test_the_wait_is_the_time_until_the_window_has_room(limiters: Limiters) -> None:
    limiter = limiters.make()
    await admitted(limiter, "a", 3)
    with pytest.raises(RateLimited) as refusal:
        await limiter.admit(RATE, "a")
    assert 50 < refusal.value.retry_after_s <= 60


async def test_a_window_moves(limiters: Limiters) -> None:
    limiter, rate = limiters.make(), parse_rate("2/second")
    await limiter.admit(rate, "a")
    await limiter.admit(rate, "a")
    with pytest.raises(RateLimited):
        await limiter.admit(rate, "a")
    await asyncio.sleep(1.1)
    await limiter.admit(rate, "a")


async def test_windows_that_are_over_are_swept_now_and_then(
    limiters: Limiters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.limits._SWEEP_EVERY_S", 0.05)
    limiter, rate = limiters.make(), parse_rate("2/second")
    for k in range(50):
        await limiter.admit(rate, f"address:{k}")
    assert len(limiter._memory.events) == 50
    await asyncio.sleep(1.2)
    for _ in range(20):
        with contextlib.suppress(RateLimited):
            await limiter.admit(rate, "another")
        await asyncio.sleep(0.02)
    assert len(limiter._memory.events) == 1


async def test_processes_count_together_in_redis(limiters: Limiters, store: RedisServer) -> None:
    one, other = limiters.make(store.url), limiters.make(store.url)
    assert await admitted(one, "together", 2) + await admitted(other, "together", 2) == [True, True, True, False]
    assert await one.ready() is None


async def test_hosts_whose_clocks_are_an_hour_apart_count_together(
    limiters: Limiters, store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, ahead, clock = limiters.make(store.url), limiters.make(store.url), time.time
    assert await admitted(one, "apart") == [True]
    with monkeypatch.context() as context:
        context.setattr(time, "time", lambda: clock() + 3600)
        assert await admitted(ahead, "apart", 3) == [True, True, False]
    with pytest.raises(RateLimited) as refused_here:
        await one.admit(RATE, "apart")
    assert 0 < (refused_here.value.retry_after_s or 0) <= 60


async def test_a_window_in_redis_moves_and_is_forgotten(limiters: Limiters, store: RedisServer) -> None:
    limiter, rate = limiters.make(store.url), parse_rate("2/second")
    for _ in range(2):
        await limiter.admit(rate, "moving")
    with pytest.raises(RateLimited):
        await limiter.admit(rate, "moving")
    await asyncio.sleep(1.1)
    await limiter.admit(rate, "moving")
    await asyncio.sleep(1.1)
    with redis.Redis.from_url(store.url) as client:
        assert list(client.scan_iter("*:moving")) == []


async def test_a_redis_that_answers_again_is_asked_again_and_costs_no_request_until_then(
    tmp_path: Path, limiters: Limiters
) -> None:
    with redis_server(server_binaries()["valkey"], tmp_path) as server, redis.Redis.from_url(server.url) as client:
        registry = CollectorRegistry()
        one, other = limiters.make(server.url, registry=registry), limiters.make(server.url)
        assert await admitted(one, "a", 2) == [True, True]
        client.client_pause(2500)
        began = time.monotonic()
        while time.monotonic() - began < 2.3:
            await admitted(one, "b")
            await asyncio.sleep(0.05)
        assert registry.get_sample_value("e2h_rate_limit_redis_faults_total") == 1
        async with asyncio.timeout(30):
            while not one._presence.there:  # noqa: ASYNC110 - it is on the other side of a socket
                await asyncio.sleep(0.05)
        assert await admitted(one, "a") + await admitted(other, "a") == [True, False]


async def test_without_redis_each_counts_alone_and_nobody_waits_for_it(tmp_path: Path, limiters: Limiters) -> None:
    with redis_server(server_binaries()["valkey"], tmp_path) as server:
        one, other = limiters.make(server.url), limiters.make(server.url)
        assert await admitted(one, "a", 2) + await admitted(other, "a") == [True, True, True]
    assert await admitted(one, "a", 4) == [True, True, True, False]
    assert await admitted(other, "a", 4) == [True, True, True, False]
    told = await one.ready()
    assert told is not None
    assert "counts alone" in told


async def test_a_redis_that_hangs_costs_its_time_out_once(limiters: Limiters) -> None:
    asked = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limiter = limiters.make(f"redis://127.0.0.1:{port}/0", redis_timeout_ms=50.0)
    assert await admitted(limiter, "a", 5) == [True, True, True, False, False]
    assert asked == 1
    server.close()


async def test_what_redis_says_in_error_is_no_refusal(tmp_path: Path, limiters: Limiters) -> None:
    with redis_server(server_binaries()["valkey"], tmp_path, "right") as server:
        limiter = limiters.make(server.url.replace("right", "wrong"))
        assert await admitted(limiter, "a", 4) == [True, True, True, False]


async def test_an_address_over_its_rate_is_told_when_to_come_again() -> None:
    app = all_in_one_app(FakeGenerator(["x"]), FakeVerifier(), RuntimeSettings(rate_limit="2/minute"))
    async with served(app) as address:
        replies = [await exchange(address, SCORE, Sent(plain(SCORE))) for _ in range(3)]
        free = [await exchange(address, path, Sent(method="GET")) for path in ("/health", "/ready", "/metrics")]
    assert [reply.status for reply in replies] == [200, 200, 429]
    refused(replies[2], 429, "rate_limited")
    assert 50 < int(replies[2].headers["retry-after"]) <= 72
    assert replies[2].headers["x-should-retry"] == "true"
    assert replies[2].json["error"]["retryable"] is True
    assert [reply.status for reply in free] == [200, 200, 200]
    assert b"e2h_rate_limited_total 1.0" in free[2].body


async def test_the_keys_of_a_tenant_share_its_rate_unless_they_have_their_own(tmp_path: Path) -> None:
    async with gate(tmp_path / "keys.json", rate_limit="2/minute") as door:
        first, second, own = door.key("score"), door.key("score"), door.key("score", rate="3/minute")
        other, record = new_key("other", ["score"])
        change_keys(door.path, lambda present: (*present, record))
        statuses = [await door.admits(SCORE, key) for key in (first, second, second, other)]
        assert statuses == [200, 200, 429, 200]
        assert [(await door.ask(SCORE, f"Bearer {own}")).status for _ in range(4)] == [200, 200, 200, 429]


async def test_a_forwarded_address_counts_only_from_a_trusted_proxy() -> None:
    async def statuses(trusted: str) -> list[int]:
        settings = RuntimeSettings(rate_limit="1/minute", trusted_proxies=trusted)
        headers = [(("content-type", "application/json"), ("x-forwarded-for", f"10.0.0.{k}")) for k in range(2)]
        async with served(all_in_one_app(FakeGenerator(["x"]), FakeVerifier(), settings), settings) as address:
            return [(await exchange(address, SCORE, Sent(plain(SCORE), given))).status for given in headers]

    assert await statuses("") == [200, 429]
    assert await statuses("127.0.0.1") == [200, 200]


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (("10.0.0.1", 1), "10.0.0.1"),
        (("2001:db8::1", 1), "2001:db8::/64"),
        (("2001:db8::ffff:1", 1), "2001:db8::/64"),
        (("testclient", 1), "unknown"),
        (None, "unknown"),
    ],
)
def test_a_line_of_the_sixth_version_is_one_caller(client: Any, name: str) -> None:
    assert network_of({"type": "http", "client": client}) == name

"""The score cache on a real redis: what hits, what misses, and scoring that goes on whatever the redis does."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis

from services.core.contracts import ScoreRequest, ScoreResponse
from services.core.ports import KnownScores
from services.runtime.app import Lifecycle
from services.runtime.redis import connect
from services.verifier.api import verifier_router
from services.verifier.cache import build_score_cache
from services.verifier.metrics import VerifierMetrics
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings
from tests.conftest import CheckpointOf
from tests.serving import serving_app
from tests.stores import RedisServer, redis_server, server_binaries
from tests.tiny import save_verifier

PROBLEM = "What is 6 times 7?"
STEPS = [{"steps": [f"{k} is a step.", *["more."] * k]} for k in range(4)]
OTHERS = [{"steps": [f"{k} is another."]} for k in range(3)]
# Far over the time-out of 100 ms, far under the 5 s for which a redis is paused here.
SOON_S = 4.0


@pytest.fixture(params=server_binaries().items(), ids=lambda item: item[0])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(request.param[1], tmp_path) as server:
        yield server


@pytest.fixture
async def admin(redis: RedisServer) -> AsyncIterator[Redis]:
    """A connection of the test's own, patient."""
    async with connect(SecretStr(redis.url), timeout_s=20.0) as client:
        yield client


class Cached:
    """A real, tiny verifier with a cache, and what it counted."""

    def __init__(self, model: Path, url: str, **settings: Any) -> None:
        self.registry = CollectorRegistry()
        given = VerifierSettings(model=str(model), device="cpu", cache_url=SecretStr(url), **settings)
        cache = build_score_cache(given, self.registry)
        assert cache is not None
        self.cache = cache
        self.verifier = LocalVerifier(given, VerifierMetrics(self.registry), cache)

    async def score(self, *solutions: dict[str, Any]) -> ScoreResponse:
        request = ScoreRequest.model_validate({"problem": PROBLEM, "solutions": list(solutions)})
        response, _ = await self.verifier.score(request)
        return response

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"e2h_verifier_cache_{name}_total", labels) or 0.0

    @property
    def failures(self) -> float:
        pairs = [(operation, cause) for operation in ("get", "set") for cause in ("lost", "refused")]
        return sum(self.count("failures", operation=operation, cause=cause) for operation, cause in pairs)


Start = Callable[..., AbstractAsyncContextManager[Cached]]


@pytest.fixture
def start(redis: RedisServer, checkpoint_of: CheckpointOf) -> Start:
    @asynccontextmanager
    async def started(model: Path | None = None, url: str | None = None, **settings: Any) -> AsyncIterator[Cached]:
        cached = Cached(model or checkpoint_of("oprm"), url or redis.url, **settings)
        await cached.verifier.start()
        yield cached
        await cached.verifier.close()

    return started


def hits(response: ScoreResponse) -> list[bool]:
    return [solution.cached for solution in response.solutions]


def scores(response: ScoreResponse) -> list[Any]:
    return [(s.index, s.steps, s.outcome, s.aggregate, s.first_error, s.tokens) for s in response.solutions]


# --- hits and misses -------------------------------------------------------------------------------------------------


async def test_a_second_ask_is_answered_from_the_cache_to_the_last_digit(start: Start) -> None:
    async with start() as verifier:
        first, second = await verifier.score(*STEPS), await verifier.score(*STEPS)
    assert (hits(first), hits(second)) == ([False] * 4, [True] * 4)
    assert scores(first) == scores(second)
    tokens = first.usage.tokens
    # Their common prompt is computed once.
    assert 0 < first.usage.tokens_computed == tokens - first.usage.tokens_cached < tokens
    assert (second.usage.tokens, second.usage.tokens_computed, second.usage.tokens_cached) == (tokens, 0, tokens)
    assert verifier.count("lookups", result="miss") == verifier.count("lookups", result="hit") == 4
    assert verifier.registry.get_sample_value("e2h_verifier_batch_solutions_count") == 1


async def test_known_and_new_solutions_are_answered_in_order(start: Start) -> None:
    async with start() as verifier:
        alone = [scores(await verifier.score(one))[0] for one in (*STEPS[:2], OTHERS[0])]
        mixed = await verifier.score(STEPS[0], STEPS[2], {"steps": ["word " * 600]}, OTHERS[0], STEPS[1])
    assert hits(mixed) == [True, False, False, True, True]
    assert [s.error.code if s.error else None for s in mixed.solutions][2] == "context_length_exceeded"
    found = {place: scores(mixed)[place][1:] for place in (0, 3, 4)}
    assert found == {0: alone[0][1:], 3: alone[2][1:], 4: alone[1][1:]}
    # Of the new one, only what follows the prompt that the others had.
    assert 0 < mixed.usage.tokens_computed < mixed.solutions[1].tokens
    assert mixed.usage.tokens_cached == mixed.usage.tokens - mixed.usage.tokens_computed


async def test_another_process_with_the_same_model_knows_it_wherever_it_lies(
    start: Start, checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkpoint_of("oprm"), tmp_path / "copy"))
    async with start() as first:
        expected = await first.score(*STEPS)
    async with start(copy) as second:
        found = await second.score(*STEPS)
    assert hits(found) == [True] * 4
    assert scores(found) == scores(expected)


@pytest.mark.parametrize("other", ["weights", "dtype", "kind"])
async def test_another_model_dtype_or_kind_knows_nothing_of_it(
    start: Start, checkpoint_of: CheckpointOf, tmp_path: Path, other: str
) -> None:
    async with start() as first:
        await first.score(*STEPS)
    model = save_verifier(tmp_path / "other", seed=1) if other == "weights" else checkpoint_of("oprm")
    settings: dict[str, dict[str, Any]] = {"dtype": {"dtype": "bfloat16"}, "kind": {"kind": "prm"}}
    async with start(model, **settings.get(other, {})) as second:
        assert hits(await second.score(*STEPS)) == [False] * 4


async def test_a_request_costs_one_look_up_and_one_pipeline(start: Start, admin: Redis) -> None:
    async with start() as verifier:
        await verifier.score(*STEPS)
        await admin.config_resetstat()
        await verifier.score(*STEPS, *OTHERS)
        calls = {name: stats["calls"] for name, stats in (await admin.info("commandstats")).items()}
    assert (calls["cmdstat_mget"], calls["cmdstat_set"]) == (1, len(OTHERS))


async def test_a_score_is_kept_for_its_lifetime(start: Start, admin: Redis) -> None:
    async with start(cache_ttl_s=100) as verifier:
        await verifier.score(*STEPS)
    lifetimes = [await admin.ttl(key) for key in await admin.keys("*")]
    assert len(lifetimes) == 4
    assert all(0 < lifetime <= 100 for lifetime in lifetimes)


GOOD = b'{"v":1,"steps":[0.5],"outcome":0.5}'


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x80\x04K*.", id="a pickle"),
        pytest.param(b"null", id="null"),
        pytest.param(GOOD[:-1], id="cut off"),
        pytest.param(GOOD.replace(b'"v":1', b'"v":2'), id="another schema"),
        pytest.param(GOOD.replace(b"[0.5]", b"[NaN]"), id="a NaN"),
        pytest.param(GOOD.replace(b"[0.5]", b"[1.5]"), id="over one"),
        pytest.param(GOOD.replace(b"[0.5]", b'["0.5"]'), id="a string"),
        pytest.param(GOOD.replace(b"[0.5]", b"[0.5,0.5]"), id="a step too many"),
        pytest.param(GOOD.replace(b',"outcome":0.5', b',"outcome":null'), id="no outcome"),
        pytest.param(["a"], id="a list"),
    ],
)
async def test_a_value_that_is_no_entry_is_a_miss_and_is_replaced(
    start: Start, admin: Redis, value: bytes | list[str]
) -> None:
    async with start() as verifier:
        expected = await verifier.score(STEPS[0])
        (key,) = await admin.keys("*")
        await admin.delete(key)
        await (admin.rpush(key, *value) if isinstance(value, list) else admin.set(key, value))
        again, then = await verifier.score(STEPS[0]), await verifier.score(STEPS[0])
        assert verifier.failures == 0
    assert (hits(again), hits(then)) == ([False], [True])
    assert again.solutions[0].outcome == pytest.approx(expected.solutions[0].outcome, abs=1e-4)
    assert scores(then) == scores(again)


async def test_a_value_in_order_is_believed(start: Start, admin: Redis) -> None:
    async with start() as verifier:
        await verifier.score(STEPS[0])
        (key,) = await admin.keys("*")
        await admin.set(key, GOOD)
        (solution,) = (await verifier.score(STEPS[0])).solutions
    assert ([s.score for s in solution.steps], solution.outcome, solution.cached) == ([0.5], 0.5, True)


# --- a redis in trouble ----------------------------------------------------------------------------------------------


async def scores_soon(verifier: Cached, *solutions: dict[str, Any]) -> list[bool]:
    """Every solution is scored, and soon."""
    async with asyncio.timeout(SOON_S):
        response = await verifier.score(*solutions)
    assert all(s.error is None and s.outcome is not None for s in response.solutions)
    return hits(response)


async def until_it_hits(verifier: Cached, *solutions: dict[str, Any]) -> None:
    for _ in range(200):
        if all(hits(await verifier.score(*solutions))):
            return
        await asyncio.sleep(0.1)
    pytest.fail("the cache is not used again")


async def test_a_slow_redis_is_done_without_and_not_every_request_waits_for_it(start: Start, admin: Redis) -> None:
    async with start() as verifier:
        await verifier.score(*STEPS)
        await admin.client_pause(5000)
        began = time.monotonic()
        assert await scores_soon(verifier, *STEPS) == [False] * 4
        for _ in range(19):
            await scores_soon(verifier, *STEPS)
        took = time.monotonic() - began
        # One try a second for each operation; a time-out each would be forty.
        assert 1 <= verifier.failures <= 2 * (took + 2)
        assert verifier.count("failures", operation="get", cause="lost") >= 1
        await until_it_hits(verifier, *STEPS)


async def test_concurrent_requests_to_a_slow_redis_are_all_scored(start: Start, admin: Redis) -> None:
    async with start() as verifier:
        await verifier.score(*STEPS)
        await admin.client_pause(5000)
        answers = await asyncio.gather(*(scores_soon(verifier, STEPS[k % 4]) for k in range(100)))
    assert answers == [[False]] * 100


async def test_a_redis_that_dies_and_comes_back_is_used_again(start: Start, redis: RedisServer) -> None:
    async with start() as verifier:
        await verifier.score(*STEPS)
        redis.kill()
        for _ in range(3):
            assert await scores_soon(verifier, *STEPS) == [False] * 4
        assert verifier.count("lookups", result="skipped") > 0
        redis.start()
        await until_it_hits(verifier, *STEPS)


async def test_a_redis_that_was_never_there_keeps_nothing_from_starting(start: Start, redis: RedisServer) -> None:
    redis.kill()
    async with start() as verifier:
        assert await scores_soon(verifier, *STEPS) == [False] * 4
        redis.start()
        await until_it_hits(verifier, *STEPS)


async def test_a_full_redis_keeps_nothing_new_and_still_tells_what_it_knows(start: Start, admin: Redis) -> None:
    async with start() as verifier:
        await verifier.score(*STEPS)
        await admin.config_set("maxmemory-policy", "noeviction")
        await admin.config_set("maxmemory", "1")
        assert await scores_soon(verifier, *STEPS, *OTHERS) == [True] * 4 + [False] * 3
        assert await scores_soon(verifier, *STEPS, *OTHERS) == [True] * 4 + [False] * 3
        assert verifier.count("failures", operation="set", cause="refused") == verifier.failures == 1
        await admin.config_set("maxmemory", "0")
        await until_it_hits(verifier, *OTHERS)


async def test_a_redis_that_refuses_us_is_done_without(start: Start, admin: Redis) -> None:
    await admin.config_set("requirepass", "other")
    async with start() as verifier:
        assert await scores_soon(verifier, *STEPS) == [False] * 4
        assert verifier.failures >= 1


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="a web server"),
        pytest.param(b"*x\r\n" * 20, id="a length that is no number"),
        pytest.param(b"+OK\r\n" * 20, id="OK to everything"),
        pytest.param(b"*1\r\n" * 20_000, id="lists in lists"),
        pytest.param(b"$-1\r\n" * 20, id="null to everything"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_a_server_that_is_no_redis_is_done_without(start: Start, reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(reply)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, start(url=f"redis://127.0.0.1:{port}/0") as verifier:
        for _ in range(3):
            assert await scores_soon(verifier, *STEPS) == [False] * 4
        assert verifier.count("lookups", result="hit") == 0


async def test_a_caller_who_leaves_a_slow_redis_is_no_failure_of_it(start: Start, admin: Redis) -> None:
    async with start(cache_timeout_ms=10_000) as verifier:
        await verifier.score(*STEPS)
        await admin.client_pause(1000)
        leaving = asyncio.create_task(verifier.score(*STEPS))
        await asyncio.sleep(0.2)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        # The answer to the caller who left is not taken for that of the next.
        assert hits(await verifier.score(*STEPS[:2], *OTHERS[:1])) == [True, True, False]
        assert hits(await verifier.score(*STEPS)) == [True] * 4
        assert verifier.failures == 0


async def test_the_cache_itself_never_raises(start: Start, redis: RedisServer) -> None:
    async with start() as verifier:
        redis.kill()
        assert await verifier.cache.get(["a", "b"]) == [None, None]
        await verifier.cache.put({"a": KnownScores((0.5,), None)})
        assert await verifier.cache.get([]) == []


async def test_ready_tells_a_cache_that_is_down_as_degraded(start: Start, redis: RedisServer) -> None:
    async with start() as verifier:
        lifecycle = Lifecycle(checks=[verifier.verifier.ready], optional=[verifier.cache.ready])
        app = serving_app([verifier_router(verifier.verifier)], lifecycle)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://verifier") as client:
            up = await client.get("/ready")
            redis.kill()
            down = await client.get("/ready")
    assert (up.status_code, up.json()["degraded"]) == (200, [])
    assert (down.status_code, down.json()["status"]) == (200, "ready")
    assert down.json()["degraded"] == ["redis: the score cache does not answer (ConnectionError)"]

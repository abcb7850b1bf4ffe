"""A real redis for the tests of jobs, started once; each test finds it empty."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.jobs.store import JobStore
from services.runtime.redis import connect
from tests.stores import RedisServer, redis_server, server_binaries


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(server_binaries()["valkey"], tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def settings(shared_redis: RedisServer, tmp_path: Path) -> JobSettings:
    return JobSettings.model_validate(
        {"redis_url": shared_redis.url, "results_url": str(tmp_path / "results"), "lease_s": 0.3, "sweep_s": 0.05}
    )


@pytest_asyncio.fixture
async def redis(settings: JobSettings) -> AsyncIterator[Redis]:
    assert settings.redis_url is not None
    client = connect(settings.redis_url, timeout_s=settings.redis_timeout_s)
    await client.flushall()
    await client.config_set("maxmemory", 0)
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


@pytest.fixture
def store(redis: Redis, settings: JobSettings) -> JobStore:
    return JobStore(redis, settings)

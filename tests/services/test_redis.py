"""Addresses of a redis: what is one, what of it may be shown, and whether something answers there."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from services.runtime.redis import connect, shown, trouble
from services.verifier.settings import VerifierSettings
from tests.integration.processes import free_port
from tests.stores import redis_server, server_binaries

PASSWORD = "canary-5d1c"
VALKEY = server_binaries()["valkey"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("redis://h", "redis://h:6379", id="a host"),
        pytest.param("redis://h:6380/2", "redis://h:6380/2", id="port and database"),
        pytest.param(f"redis://:{PASSWORD}@h/0", "redis://h:6379/0", id="a password"),
        pytest.param(f"rediss://user:{PASSWORD}@h:1/0", "rediss://h:1/0", id="a user over TLS"),
        pytest.param(f"redis://h/0?password={PASSWORD}", "redis://h:6379/0", id="a password as an option"),
        pytest.param("redis://[::1]:6379/0", "redis://[::1]:6379/0", id="IPv6"),
        pytest.param(f"unix:///run/redis.sock?password={PASSWORD}", "unix:///run/redis.sock", id="a socket"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, expected: str) -> None:
    settings = VerifierSettings(cache_url=SecretStr(url))
    assert settings.cache_url is not None
    assert shown(settings.cache_url) == expected
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"http://:{PASSWORD}@h", id="another protocol"),
        pytest.param(f"{PASSWORD}@h:6379", id="no protocol"),
        pytest.param(f"redis://:{PASSWORD}@", id="no host"),
        pytest.param(f"redis://:{PASSWORD}@h:99999", id="no port"),
        pytest.param(f"redis://:{PASSWORD}@h:0", id="port 0"),
        pytest.param(f"redis://:{PASSWORD}@h/first", id="a database that is no number"),
        pytest.param(f"redis://:{PASSWORD}@h?strange=1", id="an unknown option"),
        pytest.param(f"redis://:{PASSWORD}@h?db=first", id="an option of the wrong type"),
        pytest.param("unix://", id="no path"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValidationError, match="redis://") as caught:
        VerifierSettings(cache_url=SecretStr(url))
    assert PASSWORD not in str(caught.value)
    with pytest.raises(ValidationError) as from_text:
        VerifierSettings.model_validate({"cache_url": url})
    assert PASSWORD not in str(from_text.value)


async def test_a_server_that_answers_is_no_trouble(tmp_path: Path) -> None:
    with redis_server(VALKEY, tmp_path, PASSWORD) as server:
        async with connect(SecretStr(server.url), timeout_s=5.0) as client:
            assert await trouble(client) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        pytest.param("redis://127.0.0.1:{port}/0", "AuthenticationError", id="no password"),
        pytest.param("redis://:wrong@127.0.0.1:{port}/0", "AuthenticationError", id="a wrong password"),
        pytest.param("redis://127.0.0.1:{closed}/0", "ConnectionError", id="nobody"),
        pytest.param("unix:///none.sock", "ConnectionError", id="no socket"),
    ],
)
async def test_a_server_that_does_not_answer_is_told_by_kind(tmp_path: Path, url: str, reason: str) -> None:
    with redis_server(VALKEY, tmp_path, PASSWORD) as server:
        address = SecretStr(url.format(port=server.port, closed=free_port()))
        async with connect(address, timeout_s=5.0) as client:
            assert await trouble(client) == reason

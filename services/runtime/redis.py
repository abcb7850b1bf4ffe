"""Connections to redis. A URL may hold a password, so it is kept as a secret and shown without one."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_FORMS = "write it as redis://[USER:PASSWORD@]HOST[:PORT][/DB], the same with rediss://, or unix:///PATH[?db=DB]"
# Callers beyond these wait for a connection, within their time-out.
_MAX_CONNECTIONS = 64


def _checked(url: SecretStr) -> SecretStr:
    """Refuse what the library would pass over in silence, or find out about at the first connection."""
    try:
        parts = urlsplit(url.get_secret_value())
        named = parts.path if parts.scheme == "unix" else parts.hostname
        database = parts.path.removeprefix("/") or "0"
        # `port` raises ValueError beyond 65535, an unknown option in the query TypeError when a connection is made.
        if not named or parts.port == 0 or (parts.scheme != "unix" and not database.isdecimal()):
            raise ValueError
        _pool(url, timeout_s=1.0).make_connection()
    except (ValueError, TypeError, RedisError):
        raise ValueError(_FORMS) from None
    return url


RedisUrl = Annotated[SecretStr, AfterValidator(_checked)]


def connect(url: SecretStr, *, timeout_s: float) -> Redis:
    """A client with a pool of its own, which connects when it is first used. Every wait is at most `timeout_s`.

    Nothing is tried twice: whoever asks a cache has something better to do, and others retry on their own terms.
    """
    return Redis.from_pool(_pool(url, timeout_s))


def shown(url: SecretStr) -> str:
    """Where `url` points, fit for a log: no user, no password, no options."""
    parts = urlsplit(url.get_secret_value())
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"


async def trouble(client: Redis) -> str | None:
    """None when redis answers this client, else the kind of the fault."""
    try:
        await client.ping()
    except Exception as error:  # what answers there may be no redis
        return type(error).__name__
    return None


def _pool(url: SecretStr, timeout_s: float) -> BlockingConnectionPool:
    return BlockingConnectionPool.from_url(
        url.get_secret_value(),
        max_connections=_MAX_CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )

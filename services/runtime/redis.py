"""Connections to redis. A URL may hold a password, so it is kept as a secret and shown without one."""

import asyncio
import contextlib
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
_ASKED_EVERY_S = 1.0


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


class Presence:
    """Whether a redis is worth asking: from a fault on it is not, until it answers a ping, which is sent each second.

    So a slow redis costs its time-out those who were asking as it became slow, and nobody after them.
    """

    def __init__(self, client: Redis, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._asking: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def there(self) -> bool:
        return self._asking is None or self._asking.done()

    def lost(self) -> None:
        """Somebody got no answer, or a fault."""
        if self.there and not self._closing:
            self._asking = asyncio.create_task(self._ask())

    async def close(self) -> None:
        self._closing = True
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        # Asked as well as cancelled: the redis client can lose a cancellation that comes with its answer.
        while not self._closing:
            await asyncio.sleep(_ASKED_EVERY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    if await trouble(self._client) is None:
                        return


def _pool(url: SecretStr, timeout_s: float) -> BlockingConnectionPool:
    return BlockingConnectionPool.from_url(
        url.get_secret_value(),
        max_connections=_MAX_CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )

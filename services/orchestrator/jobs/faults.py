"""Faults of the redis that keeps jobs, as ours: `UpstreamUnavailable` where it is away or slow, `StorageFull`."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from services.core.errors import StorageFull, UpstreamUnavailable


@contextmanager
def redis_faults() -> Iterator[None]:
    """Faults of redis within the block, as ours."""
    try:
        yield
    except OutOfMemoryError:
        raise StorageFull("the redis that keeps jobs is full") from None
    except ResponseError as error:
        # MISCONF: its disk is full; OOM inside a script of an older server.
        if str(error).startswith(("OOM", "MISCONF")):
            raise StorageFull("the redis that keeps jobs is full") from None
        raise UpstreamUnavailable("the redis that keeps jobs refuses") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise UpstreamUnavailable("the redis that keeps jobs does not answer") from error

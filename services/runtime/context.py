"""What every hop of a request knows of it: its id, its tenant, its class, the time left. Travels with the task."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

# What waits for a person, and what does not: jobs.
Priority = Literal["interactive", "batch"]

_id: ContextVar[str] = ContextVar("e2h_request_id", default="")
_tenant: ContextVar[str] = ContextVar("e2h_tenant", default="")
_priority: ContextVar[Priority] = ContextVar("e2h_priority", default="interactive")
_deadline: ContextVar[float] = ContextVar("e2h_deadline", default=math.inf)


def request_id() -> str:
    """The id of the current request, or an empty string outside of one."""
    return _id.get()


def set_request_id(value: str) -> None:
    """Name the request that the current task, and the tasks it starts, answer."""
    _id.set(value)


def tenant() -> str:
    """Who gets a fair share: the tenant of the API key, or the caller's network where no keys are asked for."""
    return _tenant.get()


def set_tenant(value: str) -> None:
    """Say for whom the current task, and the tasks it starts, work."""
    _tenant.set(value)


def priority() -> Priority:
    """The class of the current request."""
    return _priority.get()


def set_priority(value: Priority) -> None:
    """Say how urgent the work of the current task, and of the tasks it starts, is."""
    _priority.set(value)


def deadline() -> float:
    """When the caller's budget ends, on the clock of `time.monotonic`; infinite without one."""
    return _deadline.get()


def time_left() -> float:
    """Seconds until `deadline`: negative after it, infinite without one."""
    return _deadline.get() - time.monotonic()


def set_budget(seconds: float) -> None:
    """Give the current task, and the tasks it starts, this many seconds from now."""
    _deadline.set(time.monotonic() + seconds)


@contextmanager
def reserving(seconds: float) -> Iterator[None]:
    """Within the block, the current task and those it starts have this much less time: it is kept for what follows."""
    token = _deadline.set(_deadline.get() - seconds)
    try:
        yield
    finally:
        _deadline.reset(token)

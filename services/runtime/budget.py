"""A request's class and time budget as headers: read by every service, passed on by its clients with what is left.

`x-request-timeout-ms` is the time that remains, never a moment: clocks of hosts differ. `x-priority` is `interactive`
(the default) or `batch`, which yields to everything interactive.
"""

import math
from collections.abc import Iterable
from typing import cast, get_args

from services.core.errors import DeadlineExceeded, InvalidRequest
from services.runtime import context

TIMEOUT_HEADER = "x-request-timeout-ms"
PRIORITY_HEADER = "x-priority"
# Longer budgets are clamped: nothing of ours runs for an hour, and an unbounded number has no business in arithmetic.
MAX_TIMEOUT_MS = 3_600_000


def read_budget(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Set class and deadline of the current task from raw headers; whether the budget was cut to the longest.

    Raises `InvalidRequest` for a value that is none.
    """
    clamped = False
    for name, value in headers:
        if name == TIMEOUT_HEADER.encode():
            asked = _milliseconds(value)
            clamped = asked > MAX_TIMEOUT_MS
            context.set_budget(min(asked, MAX_TIMEOUT_MS) / 1000)
        elif name == PRIORITY_HEADER.encode():
            context.set_priority(_priority(value))
    return clamped


def require_time() -> None:
    """Raises `DeadlineExceeded` when nothing of the current task's budget is left."""
    if context.time_left() <= 0:
        raise DeadlineExceeded("the request's time budget ran out")


def budget_headers() -> dict[str, str]:
    """What the next hop must know. Raises `DeadlineExceeded` when nothing is left."""
    headers: dict[str, str] = {} if context.priority() == "interactive" else {PRIORITY_HEADER: context.priority()}
    if math.isinf(context.deadline()):
        return headers
    left = int(context.time_left() * 1000)
    if left <= 0:
        raise DeadlineExceeded("the request's time budget ran out")
    return {**headers, TIMEOUT_HEADER: str(left)}


def _milliseconds(value: bytes) -> int:
    digits = value.lstrip(b"0")
    if not value.isdigit() or not digits:
        raise InvalidRequest("the time budget is a whole number of milliseconds, at least 1", param=TIMEOUT_HEADER)
    # A header may hold thousands of digits; more than these are clamped anyway.
    return MAX_TIMEOUT_MS + 1 if len(digits) > 9 else int(digits)


def _priority(value: bytes) -> context.Priority:
    text = value.decode("latin-1")
    if text not in get_args(context.Priority):
        raise InvalidRequest("the priority is interactive or batch", param=PRIORITY_HEADER)
    return cast(context.Priority, text)

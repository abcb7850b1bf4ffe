"""The id of the request that this task answers."""

from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("e2h_request_id", default="")


def request_id() -> str:
    """The id of the current request, or an empty string outside of one."""
    return _current.get()


def set_request_id(value: str) -> None:
    """Name the request that the current task, and the tasks it starts, answer."""
    _current.set(value)

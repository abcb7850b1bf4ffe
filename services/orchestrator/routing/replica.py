"""One replica: its port, its load, its breaker, and who is waiting for a word of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from services.core.errors import DeadlineExceeded, UpstreamUnavailable
from services.orchestrator.routing.breaker import Breaker


class Probed(Protocol):
    """What routing asks of any port."""

    async def ready(self) -> str | None: ...


Port = TypeVar("Port", bound=Probed)
Word = TypeVar("Word")


class Replica(Generic[Port]):
    """`on_wait` is called when somebody begins to wait for the replica: from then on it must be watched."""

    def __init__(self, ordinal: int, port: Port, breaker: Breaker, on_wait: "Callable[[Replica[Port]], None]") -> None:
        self.ordinal = ordinal
        self.port = port
        self.breaker = breaker
        self.outstanding = 0
        self._on_wait = on_wait
        self._waiting: dict[asyncio.Timeout, float] = {}
        self._doubted = False

    @contextmanager
    def loaded(self, tokens: int) -> "Iterator[Load]":
        """Account for `tokens` under way for the length of the block."""
        load = Load(self, tokens)
        try:
            yield load
        finally:
            load.lighten(tokens)

    async def hear(self, word: Awaitable[Word]) -> Word:
        """What the replica says next.

        Raises what `word` raises, and `UpstreamUnavailable` when `abandon` is called first.
        """
        try:
            async with asyncio.timeout(None) as patience:
                self._waiting[patience] = asyncio.get_running_loop().time()
                self._on_wait(self)
                try:
                    return await word
                except (asyncio.CancelledError, DeadlineExceeded):
                    # A caller's haste is not its fault; but it may hang, and a probe will tell.
                    self._doubted = not patience.expired()
                    raise
                finally:
                    del self._waiting[patience]
        except TimeoutError as error:
            if not patience.expired():
                raise
            raise UpstreamUnavailable("a replica stopped answering") from error

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for it, or left without an answer since it was last found well."""
        return self._doubted or bool(self._waiting)

    def silent_for(self) -> float:
        """Seconds since the one who waits longest began to; infinite when somebody left without an answer."""
        if self._doubted:
            return float("inf")
        return asyncio.get_running_loop().time() - min(self._waiting.values(), default=float("inf"))

    def trust(self) -> None:
        """It was found well."""
        self._doubted = False

    def abandon(self) -> None:
        """End every wait for it."""
        self._doubted = False
        now = asyncio.get_running_loop().time()
        for patience in self._waiting:
            if not patience.expired():
                patience.reschedule(now)


class Load:
    """Tokens of one request that are under way at a replica."""

    def __init__(self, replica: Replica[Port], tokens: int) -> None:
        self._replica = replica
        self._left = tokens
        replica.outstanding += tokens

    def lighten(self, tokens: int) -> None:
        """So many are done; never more than there were."""
        done = min(tokens, self._left)
        self._left -= done
        self._replica.outstanding -= done

"""The tries of one request. At most one at a replica; another only after a fault of the replica, never after a refusal,
with time enough left, and within the retry budget.

What was under way at a replica that is now left out moves to another without spending from the budget: had it been left
out a moment before, the others would have been sent just that. The budget is for replicas that fail and stay.
"""

from collections.abc import Awaitable, Callable
from typing import Generic

from services.core.errors import (
    DeadlineExceeded,
    Draining,
    E2HError,
    InternalError,
    NotReady,
    UpstreamContract,
    UpstreamUnavailable,
)
from services.orchestrator.routing.fleet import Fleet
from services.orchestrator.routing.replica import Port, Replica, Word
from services.runtime import context

# The replica's own. Anything else is an answer: a refusal, or an overload that a second replica would soon share.
_FAULTS = (UpstreamUnavailable, UpstreamContract, NotReady, Draining, InternalError)


class Tries(Generic[Port]):
    """Where a request goes, and whether it goes anywhere else after that."""

    def __init__(self, fleet: Fleet[Port], key: str | None) -> None:
        self._fleet = fleet
        self._key = key
        self._tried: set[int] = set()

    def next(self, tokens: int) -> Replica[Port]:
        """The replica to try. Raises `UpstreamUnavailable` when none is left."""
        if tokens and not self._tried:
            self._fleet.retries.earn()
        return self._fleet.pick(self._key, tokens, but=self._tried)

    async def failed(self, replica: Replica[Port], error: E2HError, final: bool = False) -> None:
        """Count what happened. Returns when the request is to be tried again, else (`final` or not) raises `error`."""
        if isinstance(error, _FAULTS):
            self._fleet.failed(replica, error)
        elif not isinstance(error, DeadlineExceeded):
            replica.breaker.succeeded()
        self._tried.add(replica.ordinal)
        if final or not isinstance(error, _FAULTS) or not await self._may_move(replica):
            raise error
        self._fleet.metrics.retried(self._fleet.service)

    async def _may_move(self, replica: Replica[Port]) -> bool:
        fleet = self._fleet
        if not fleet.able(but=self._tried):
            return False
        stays = await fleet.is_well(replica)
        if not fleet.able(but=self._tried) or not fleet.suffices(context.time_left()):
            return False
        if stays and not fleet.retries.spend():
            fleet.metrics.refused(fleet.service)
            return False
        return True


async def ask(
    fleet: Fleet[Port], question: Callable[[Port], Awaitable[Word]], *, key: str | None = None, tokens: int = 0
) -> Word:
    """The answer of one replica. A question of no tokens is answered from memory: its time says nothing of others'."""
    tries = Tries(fleet, key)
    while True:
        replica = tries.next(tokens)
        began = fleet.clock()
        try:
            with replica.loaded(tokens):
                answer = await replica.hear(question(replica.port))
        except E2HError as error:
            await tries.failed(replica, error)
        else:
            fleet.succeeded(replica, fleet.clock() - began if tokens else None)
            return answer

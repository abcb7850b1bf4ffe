"""The replicas of one service: who is sent a request, who is left out after failures, who is let in again.

One that fails is probed, and left out when it is not ready; one that is ready and fails all the same, by its breaker.
While a replica keeps silent it is probed; one that does not answer its probe hangs, and whoever waits for it is told to
go elsewhere. One that is left out is probed until it is ready.
"""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Generic

import structlog

from services.core.errors import E2HError, UpstreamUnavailable
from services.orchestrator.routing.balancing import choose
from services.orchestrator.routing.breaker import Breaker
from services.orchestrator.routing.metrics import RoutingMetrics
from services.orchestrator.routing.replica import Port, Replica
from services.orchestrator.routing.retrying import RetryBudget

_log = structlog.get_logger("e2h.routing")
_PACES = 50  # answers whose times are remembered


@dataclass(frozen=True)
class Policy:
    """Times of routing, in seconds, and its slack, in tokens."""

    probe_after_s: float = 1.0  # a replica that is silent this long while somebody waits is asked whether it is there
    probe_timeout_s: float = 1.5  # and hangs when it lets this pass twice; below the time-out of a client's own probe
    rest_s: float = 1.0  # a replica that is left out is probed after this, then after twice as long, and so on
    slack_tokens: int = 0  # what a problem's own replica may hold more than another before the problem moves


class Fleet(Generic[Port]):
    """`service` is the kind of replica, for metrics and messages: generator or verifier."""

    def __init__(
        self,
        service: str,
        ports: Sequence[Port],
        metrics: RoutingMetrics,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.metrics = metrics
        self.clock = clock
        self.retries = RetryBudget(clock)
        self.policy = policy or Policy()
        self.replicas = [
            Replica(ordinal, port, Breaker(self.policy.rest_s), self._watch_over) for ordinal, port in enumerate(ports)
        ]
        self._paces: deque[float] = deque(maxlen=_PACES)
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._returns: dict[int, asyncio.Task[None]] = {}
        self._checks: dict[int, asyncio.Task[None]] = {}
        self._rng = Random()  # noqa: S311 - spreads load, no secret
        for replica in self.replicas:
            self._show(replica)

    def able(self, but: Container[int] = ()) -> list[Replica[Port]]:
        """The replicas that are not left out, outside of `but`."""
        return [r for r in self.replicas if r.breaker.state == "closed" and r.ordinal not in but]

    def pick(self, key: str | None, tokens: int, but: Container[int] = ()) -> Replica[Port]:
        """The replica for a request of `tokens`. Raises `UpstreamUnavailable` when there is none outside of `but`."""
        able = {r.ordinal: r.outstanding for r in self.able(but)}
        if not able:
            wait = min(r.breaker.rest_s for r in self.replicas)
            raise UpstreamUnavailable(f"no {self.service} answers", retry_after_s=wait)
        return self.replicas[choose(able, key, tokens + self.policy.slack_tokens, self._rng)]

    def succeeded(self, replica: Replica[Port], seconds: float | None = None) -> None:
        """It answered, after so long; None when the time says nothing."""
        replica.breaker.succeeded()
        if seconds is not None:
            self._paces.append(seconds)

    def failed(self, replica: Replica[Port], error: E2HError) -> None:
        """It did not, through its own fault."""
        was_able = replica.breaker.state == "closed"
        replica.breaker.failed()
        if was_able:
            _log.warning("replica failed", service=self.service, replica=replica.ordinal, code=error.code)
        if was_able and replica.breaker.state != "closed":
            self._leave_out(replica)

    async def is_well(self, replica: Replica[Port]) -> bool:
        """Whether a replica that has just failed says that it is ready; if not, it is left out at once."""
        if replica.breaker.state == "closed":
            checking = self._checks.get(replica.ordinal)
            if checking is None or checking.done():
                checking = self._checks[replica.ordinal] = _on_its_own(self._check(replica))
            await asyncio.shield(checking)
        return replica.breaker.state == "closed"

    def suffices(self, seconds: float) -> bool:
        """Whether a try may end within this time: whether the fastest of late would."""
        return seconds > min(self._paces, default=0.0)

    async def ready(self) -> str | None:
        """None when a replica takes work, else why none does."""
        reason: str | None = f"every {self.service} is left out after failures"
        probes = [asyncio.ensure_future(replica.port.ready()) for replica in self.able()]
        try:
            for probe in asyncio.as_completed(probes):
                reason = await probe
                if reason is None:
                    break
            return reason
        finally:
            for pending in probes:
                pending.cancel()
            await asyncio.gather(*probes, return_exceptions=True)

    def checks(self) -> list[Callable[[], Awaitable[str | None]]]:
        """One for each replica, where there are several: None when it takes work, else why not."""
        return [] if len(self.replicas) < 2 else [partial(self._fault_of, replica) for replica in self.replicas]

    async def close(self) -> None:
        """Stop watching. The ports are their owner's to close."""
        tasks = [*self._watches.values(), *self._returns.values(), *self._checks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fault_of(self, replica: Replica[Port]) -> str | None:
        left_out = replica.breaker.state != "closed"
        reason = "it is left out after failures" if left_out else await replica.port.ready()
        return None if reason is None else f"{self.service} {replica.ordinal}: {reason}"

    def _show(self, replica: Replica[Port]) -> None:
        self.metrics.watch(self.service, replica.ordinal, lambda: replica.breaker.state, lambda: replica.outstanding)

    def _watch_over(self, replica: Replica[Port]) -> None:
        if replica.ordinal not in self._watches:
            self._watches[replica.ordinal] = _on_its_own(self._watch(replica))

    async def _watch(self, replica: Replica[Port]) -> None:
        """Probe the replica while it is silent, for as long as somebody waits for it."""
        try:
            while replica.awaited:
                await asyncio.sleep(self.policy.probe_after_s)
                if replica.silent_for() < self.policy.probe_after_s:
                    continue
                # With nowhere else to go, patience is all there is.
                if self.able(but={replica.ordinal}) and await self._hangs(replica):
                    self._leave_out(replica)
                    replica.abandon()
                else:
                    replica.trust()
        finally:
            del self._watches[replica.ordinal]

    async def _check(self, replica: Replica[Port]) -> None:
        if not await self._is_ready(replica):
            self._leave_out(replica)

    async def _hangs(self, replica: Replica[Port]) -> bool:
        """Whether two probes in a row bring no answer at all; "not ready" is one."""
        for _ in range(2):
            try:
                await self._probe(replica)
            except TimeoutError:
                continue
            return False
        return True

    async def _is_ready(self, replica: Replica[Port]) -> bool:
        try:
            return await self._probe(replica) is None
        except Exception as error:  # whatever a probe dies of: nobody would ever let the replica in again
            if not isinstance(error, TimeoutError):
                _log.exception("probe failed", service=self.service, replica=replica.ordinal)
            return False

    async def _probe(self, replica: Replica[Port]) -> str | None:
        async with asyncio.timeout(self.policy.probe_timeout_s):
            return await replica.port.ready()

    def _leave_out(self, replica: Replica[Port]) -> None:
        if replica.breaker.state == "closed":
            replica.breaker.trip()
        if replica.ordinal not in self._returns:
            _log.warning("replica left out", service=self.service, replica=replica.ordinal)
            self._returns[replica.ordinal] = _on_its_own(self._let_in(replica))

    async def _let_in(self, replica: Replica[Port]) -> None:
        """Probe a replica that was left out until it is ready."""
        while replica.breaker.state != "closed":
            await asyncio.sleep(replica.breaker.rest_s)
            replica.breaker.probe()
            if await self._is_ready(replica):
                replica.breaker.mend()
            else:
                replica.breaker.trip()
        del self._returns[replica.ordinal]
        _log.info("replica let in", service=self.service, replica=replica.ordinal)


def _on_its_own(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task outside of the request that happened to start it: without its id, its class and its deadline."""
    return asyncio.create_task(work, context=contextvars.Context())

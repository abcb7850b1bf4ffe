"""Who may begin a solve, and who waits or is refused: before any other service is asked.

`turns.py` decides whose turn it is; here they wait for it, within their time budget, and what their samples may make is
accounted for until it is made.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from services.core.aggregation import Aggregation
from services.core.contracts import CandidateEvent, Message, SolveEvent, SolveRequest, SolveResponse
from services.core.errors import DeadlineExceeded, Overloaded
from services.core.ports import ProblemSolver
from services.orchestrator.answering import answer_of
from services.orchestrator.metrics import AdmissionMetrics
from services.orchestrator.settings import MOST_WAITING, AdmissionSettings
from services.orchestrator.turns import Turns, Waiting
from services.runtime import context
from services.runtime.pace import Pace


class Admission:
    """Lets solves in, in turn, by the tenant and the class of the current task and by the most that they may make."""

    def __init__(
        self, settings: AdmissionSettings, metrics: AdmissionMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._turns = Turns(settings.bounds)
        metrics.show(lambda: self._turns.in_flight, self._turns.count)
        self._doors: dict[Waiting, asyncio.Future[None]] = {}
        self._pace = Pace()
        self._released_at = 0.0

    @asynccontextmanager
    async def entered(self, tokens: int) -> "AsyncIterator[Room]":
        """Room for so many tokens for the length of the block, once it is there.

        Raises `Overloaded` with the predicted wait when that is too long, and `DeadlineExceeded` when the time budget
        ends first.
        """
        request = Waiting(context.tenant(), context.priority(), tokens)
        self._require_short(request)
        began = self._clock()
        await self._turn(request)
        self._metrics.seconds.labels(request.priority).observe(self._clock() - began)
        room = Room(self, request)
        try:
            yield room
        finally:
            room.close()

    def release(self, request: Waiting, tokens: int, used: int) -> None:
        """So many of an admitted request's tokens are made or given up, of which so many count."""
        now = self._clock()
        self._pace.learn(tokens, now - self._released_at)
        self._released_at = now
        self._turns.give_back(request, tokens, used)
        self._advance()

    def _require_short(self, request: Waiting) -> None:
        wait = self._pace.seconds(self._turns.ahead_of(request))
        full = self._turns.count_of(request.tenant) >= self._settings.max_waiting or len(self._doors) >= MOST_WAITING
        if full:
            self._refuse(request, "full", wait)
        if wait > self._settings.max_wait_s:
            self._refuse(request, "wait", wait)
        if wait > context.time_left() > 0:
            self._refuse(request, "budget", wait)

    def _refuse(self, request: Waiting, reason: str, wait: float) -> None:
        self._metrics.refused.labels(request.priority, reason).inc()
        raise Overloaded("too many requests wait for their turn", retry_after_s=wait)

    async def _turn(self, request: Waiting) -> None:
        """Returns when it is let in. However it ends otherwise, nothing of it is left."""
        door = asyncio.get_running_loop().create_future()
        self._doors[request] = door
        self._turns.join(request)
        self._advance()
        if door.done():
            return
        budget_s, longest_s = context.time_left(), self._settings.max_wait_s
        try:
            async with asyncio.timeout(max(0.0, min(budget_s, longest_s))):
                await door
        except BaseException as error:
            self._withdraw(request)
            if not isinstance(error, TimeoutError):
                raise
            if budget_s <= longest_s:
                raise DeadlineExceeded("the request's time budget ran out") from None
            self._refuse(request, "wait", self._pace.seconds(self._turns.ahead_of(request)))

    def _withdraw(self, request: Waiting) -> None:
        if request in self._doors:
            del self._doors[request]
            self._turns.leave(request)
        else:  # let in, and gone in the same moment
            self._turns.give_back(request, request.tokens, 0)
        self._advance()  # others may have waited behind it

    def _advance(self) -> None:
        """Let in whoever may go now."""
        if not self._turns.in_flight:
            self._released_at = self._clock()  # an idle time is no pace
        while (request := self._turns.next()) is not None:
            door = self._doors.pop(request)
            if not door.done():  # else its caller is leaving, and gives the room back in a moment
                door.set_result(None)


class Room:
    """What an admitted request may still make."""

    def __init__(self, admission: Admission, request: Waiting) -> None:
        self._admission = admission
        self._request = request
        self._left = request.tokens

    def made(self, reserved: int, used: int) -> None:
        """A sample has come, for which so many tokens had been reserved."""
        reserved = min(reserved, self._left)
        self._left -= reserved
        if reserved:
            self._admission.release(self._request, reserved, min(used, reserved))

    def close(self) -> None:
        """The rest will not be made. It counts as if it had been: how much of it was, nobody tells."""
        self.made(self._left, self._left)


class FairSolver:
    """A `ProblemSolver` whose callers take turns."""

    def __init__(self, solver: ProblemSolver, admission: Admission) -> None:
        self._solver = solver
        self._admission = admission

    async def events(self, request: SolveRequest, context: Sequence[Message] = ()) -> AsyncGenerator[SolveEvent, None]:
        each = request.sampling.max_tokens
        async with (
            self._admission.entered(request.most_candidates * each) as room,
            aclosing(self._solver.events(request, context)) as events,
        ):
            async for event in events:
                if isinstance(event, CandidateEvent):
                    room.made(each, event.tokens)
                yield event

    async def solve(self, request: SolveRequest, context: Sequence[Message] = ()) -> SolveResponse:
        return await answer_of(self.events(request, context))

    async def default_aggregation(self) -> Aggregation:
        return await self._solver.default_aggregation()

"""Whose request goes next, among tenants of two classes: deficit round robin in tokens. Pure: no clock, no event loop.

Shreedhar and Varghese, "Efficient Fair Queueing using Deficit Round Robin" (1995): each visit gives a tenant a quantum
of tokens, and it is served for as long as its deficit covers its next request. Rounds in which nobody could be served
are not walked but counted, so that a choice takes time in proportion to the tenants that wait, whatever they ask for.
"""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from services.runtime.context import Priority

# About one sample: smaller ones make shares no fairer than the requests, which are served whole, are long.
QUANTUM = 1024


@dataclass(frozen=True)
class Bounds:
    """Most tokens in flight: of all, of all while the next is of class batch, and of one tenant."""

    total: int
    batch: int
    tenant: int

    def of(self, priority: Priority) -> int:
        """What may be in flight with the next request of this class."""
        return self.batch if priority == "batch" else self.total


@dataclass(frozen=True, eq=False)
class Waiting:
    """One request that waits, and the most tokens that it may make."""

    tenant: str
    priority: Priority
    tokens: int


@dataclass(eq=False)
class _Line:
    """What one tenant has waiting in one class, first come first."""

    waiting: deque[Waiting] = field(default_factory=deque)
    tokens: int = 0
    deficit: int = 0

    def visits(self) -> int:
        """How often it must be visited until its deficit covers its first request."""
        return max(0, math.ceil((self.waiting[0].tokens - self.deficit) / QUANTUM))


class Turns:
    """Who waits and what is in flight. All who wait are asked for by `next` until it is None, after every change.

    Interactive goes before batch, always; within a class tenants take turns; within a tenant the first comes first.
    What is larger than a bound goes when nothing else is in flight. Nobody overtakes the one whose turn it is, except
    while that tenant's own bound holds it up.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._classes: dict[Priority, OrderedDict[str, _Line]] = {"interactive": OrderedDict(), "batch": OrderedDict()}
        self._held: dict[str, int] = {}
        self.in_flight = 0

    def count(self, priority: Priority) -> int:
        """How many wait in a class."""
        return sum(len(line.waiting) for line in self._classes[priority].values())

    def count_of(self, tenant: str) -> int:
        """How many of a tenant's requests wait."""
        return sum(len(lines[tenant].waiting) for lines in self._classes.values() if tenant in lines)

    def join(self, request: Waiting) -> None:
        """It waits from now on."""
        line = self._classes[request.priority].setdefault(request.tenant, _Line())
        line.waiting.append(request)
        line.tokens += request.tokens

    def leave(self, request: Waiting) -> None:
        """It waits no more, and was never let in."""
        self._drop(request)

    def next(self) -> Waiting | None:
        """Let the next one in; None when nobody may go now."""
        for lines in self._classes.values():
            able = {tenant: line.visits() for tenant, line in lines.items() if self._tenant_has_room(line.waiting[0])}
            if not able:
                continue
            tenant = min(able, key=lambda name: able[name])  # of equals the first in the round
            request = lines[tenant].waiting[0]
            if not _fits(request.tokens, self.in_flight, self._bounds.of(request.priority)):
                return None
            self._visit(lines, able, tenant)
            self._let_in(lines[tenant], request)
            return request
        return None

    def give_back(self, request: Waiting, tokens: int, used: int) -> None:
        """So many of its tokens are no longer in flight. What was not used is left for the tenant's next turn."""
        self.in_flight -= tokens
        self._held[request.tenant] -= tokens
        if not self._held[request.tenant]:
            del self._held[request.tenant]
        line = self._classes[request.priority].get(request.tenant)
        if line is not None:
            line.deficit += max(0, tokens - used)

    def ahead_of(self, request: Waiting) -> int:
        """Tokens that must leave before a newcomer may go: of others no more than fair shares by then. Without bounds
        of tenants, which only hold up the tenant itself."""
        own = self._classes[request.priority].get(request.tenant)
        share = request.tokens + (own.tokens if own is not None else 0)
        others = (line for tenant, line in self._classes[request.priority].items() if tenant != request.tenant)
        waiting = share + sum(min(share, line.tokens) for line in others)
        if request.priority == "batch":
            waiting += sum(line.tokens for line in self._classes["interactive"].values())
        # One that is larger than the bound goes when all is done.
        most = max(self._bounds.of(request.priority), request.tokens)
        return max(0, self.in_flight + waiting - most)

    def _tenant_has_room(self, request: Waiting) -> bool:
        return _fits(request.tokens, self._held.get(request.tenant, 0), self._bounds.tenant)

    def _visit(self, lines: "OrderedDict[str, _Line]", able: dict[str, int], chosen: str) -> None:
        """Walk the round until `chosen` can be served: those before it have been visited as often as it, the rest once
        less. The round then stands at it."""
        visits = able[chosen]
        if not visits:
            return  # its visit goes on
        passed = True
        for tenant in able:
            lines[tenant].deficit += QUANTUM * (visits if passed else visits - 1)
            passed = passed and tenant != chosen
        for tenant in list(lines):
            if tenant == chosen:
                return
            lines.move_to_end(tenant)

    def _let_in(self, line: _Line, request: Waiting) -> None:
        line.deficit -= request.tokens
        self._drop(request)
        if line.waiting and line.visits():
            self._classes[request.priority].move_to_end(request.tenant)  # its visit is over
        self.in_flight += request.tokens
        self._held[request.tenant] = self._held.get(request.tenant, 0) + request.tokens

    def _drop(self, request: Waiting) -> None:
        lines = self._classes[request.priority]
        line = lines[request.tenant]
        line.waiting.remove(request)
        line.tokens -= request.tokens
        if not line.waiting:
            del lines[request.tenant]  # with its deficit: who has nothing waiting saves nothing up


def _fits(tokens: int, held: int, bound: int) -> bool:
    return not held or held + tokens <= bound

"""ReplicatedVerifier: several verifiers as one `Verifier`."""

from collections.abc import Awaitable, Callable, Sequence

from services.core.contracts import ScoreRequest, ScoreResponse, ScoreTimings, VerifierInfo
from services.core.ports import Verifier
from services.orchestrator.routing.fleet import Fleet, Policy
from services.orchestrator.routing.metrics import RoutingMetrics
from services.orchestrator.routing.tries import ask

_CHARACTERS_A_TOKEN = 4
# About what one forward pass holds: below it, a solve's samples stay together and share their problem's prefix.
_SLACK_TOKENS = 8192


class ReplicatedVerifier:
    """Solutions of one problem go to the verifier that has its prefix, unless that one has much more to do."""

    def __init__(self, verifiers: Sequence[Verifier], metrics: RoutingMetrics, policy: Policy | None = None) -> None:
        self._fleet = Fleet("verifier", verifiers, metrics, policy or Policy(slack_tokens=_SLACK_TOKENS))

    async def info(self) -> VerifierInfo:
        return await ask(self._fleet, lambda verifier: verifier.info())

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        return await ask(
            self._fleet, lambda verifier: verifier.score(request), key=request.problem, tokens=_tokens(request)
        )

    async def ready(self) -> str | None:
        return await self._fleet.ready()

    def checks(self) -> list[Callable[[], Awaitable[str | None]]]:
        """A check of each replica, for what `/ready` calls degraded."""
        return self._fleet.checks()

    async def close(self) -> None:
        """Stop watching; the verifiers are their owner's to close."""
        await self._fleet.close()


def _tokens(request: ScoreRequest) -> int:
    """Estimated: what balances load need not be exact, and counting takes a tokenizer."""
    texts = [len(s.text) if s.text is not None else sum(map(len, s.steps or [])) for s in request.solutions]
    return 1 + (len(request.problem) * len(texts) + sum(texts)) // _CHARACTERS_A_TOKEN

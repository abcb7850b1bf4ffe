"""What the services ask of each other, of a grader and of a store, and the routes of a solver. An engine in this
process and a client over HTTP both fit."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.core.aggregation import Aggregation
from services.core.contracts import (
    Completion,
    GenerateDone,
    GenerateRequest,
    Message,
    ModelInfo,
    ScoreRequest,
    ScoreResponse,
    ScoreTimings,
    SolveEvent,
    SolveRequest,
    SolveResponse,
    VerifierInfo,
)
from services.core.equivalence import Mode, Verdict


class Generator(Protocol):
    """Samples solutions of a problem."""

    async def info(self) -> ModelInfo:
        """The model that is served. Raises `UpstreamUnavailable` when it cannot be reached."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        """Every completion as it finishes, in any order, then one `GenerateDone`.

        Closing the iterator, or cancelling its consumer, stops the samples that still run. Raises
        `ContextLengthExceeded`, `Overloaded`, `NotReady`, `UpstreamUnavailable` or `UpstreamContract`.
        """
        ...

    async def ready(self) -> str | None:
        """None when it can take work, else the reason why not."""
        ...


class Verifier(Protocol):
    """Scores the steps of solutions."""

    async def info(self) -> VerifierInfo:
        """The model that is served. Raises `UpstreamUnavailable` when it cannot be reached."""
        ...

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        """Scores in the order of `request.solutions`; a solution that cannot be scored carries its own error.

        Raises `ModelNotFound`, `Overloaded`, `NotReady`, `UpstreamUnavailable` or `UpstreamContract`.
        """
        ...

    async def ready(self) -> str | None:
        """None when it can take work, else the reason why not."""
        ...


@dataclass(frozen=True, slots=True)
class KnownScores:
    """Scores of one encoded solution that a cache holds: probabilities, in the order of its steps."""

    steps: tuple[float, ...]
    outcome: float | None


class ScoreCache(Protocol):
    """Scores by a digest of all that they depend on. It fails open: faults of the store are not raised."""

    async def get(self, keys: Sequence[str]) -> list[KnownScores | None]:
        """The scores of each key, in order; None where there are none, or the store does not answer."""
        ...

    async def put(self, entries: Mapping[str, KnownScores]) -> None:
        """Keep these scores, if the store takes them."""
        ...

    async def ready(self) -> str | None:
        """None when the store answers, else the reason why not."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...


class Grader(Protocol):
    """Compares answers without blocking the caller's event loop."""

    async def keys(self, answers: Sequence[str]) -> list[str]:
        """The canonical key of each answer, in order: equal answers have equal keys. Raises `Overloaded`."""
        ...

    async def grade(self, pairs: Sequence[tuple[str, str]], mode: Mode) -> list[Verdict]:
        """The verdict on each pair (gold, pred), in order. Raises `Overloaded`."""
        ...


class ProblemSolver(Protocol):
    """Answers problems: what the routes ask."""

    def events(self, request: SolveRequest, context: Sequence[Message] = ()) -> AsyncGenerator[SolveEvent, None]:
        """What happens on the way, and last the answer. Closing the iterator stops all work for it."""
        ...

    async def solve(self, request: SolveRequest, context: Sequence[Message] = ()) -> SolveResponse:
        """The last of the `events`."""
        ...

    async def default_aggregation(self) -> Aggregation:
        """The aggregation of the verifier's family."""
        ...

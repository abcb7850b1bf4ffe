"""What a sender is told, and what it tells of each request: both cross a process boundary as JSON. No network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from services.cli.bench.schedule import Arrivals, arrival_times
from services.cli.bench.workload import MakeBody, read_workload, score_bodies, solve_bodies
from services.core.contracts import MAX_SAMPLES, MAX_SOLUTIONS
from services.core.contracts.base import Wire
from services.core.voting import Strategy

# Outcomes of a request that are no HTTP status: no connection, no answer in time, an answer that is not e2h's.
TRANSPORT, TIMEOUT, CONTRACT = "transport", "timeout", "contract"


class ScoreLoad(Wire):
    """Requests to `POST /v1/score` with so many solutions each; for `fresh` see `score_bodies`."""

    kind: Literal["verifier"] = "verifier"
    workload: str
    solutions: int = Field(ge=1, le=MAX_SOLUTIONS)
    fresh: str | None

    @property
    def path(self) -> str:
        return "/v1/score"

    def bodies(self, seed: int) -> MakeBody:
        """Raises `InvalidRequest` for a workload that does not do."""
        return score_bodies(read_workload(Path(self.workload), self.solutions), self.solutions, seed, self.fresh)


class SolveLoad(Wire):
    """Requests to `POST /v1/solve`."""

    kind: Literal["solve"] = "solve"
    workload: str
    n: int = Field(ge=1, le=MAX_SAMPLES)
    strategy: Strategy
    max_tokens: int = Field(ge=1)

    @property
    def path(self) -> str:
        return "/v1/solve"

    def bodies(self, seed: int) -> MakeBody:
        """Raises `InvalidRequest` for a workload that does not do."""
        return solve_bodies(read_workload(Path(self.workload), 0), self.n, self.strategy, self.max_tokens, seed)


Load = Annotated[ScoreLoad | SolveLoad, Field(discriminator="kind")]


class OpenLoop(Wire):
    """Requests at times of their own, whatever becomes of those before; `rate` a second."""

    arrivals: Arrivals
    rate: float = Field(gt=0)

    def times(self, duration_s: float, seed: int) -> list[float]:
        return arrival_times(self.arrivals, self.rate, duration_s, seed)


class ClosedLoop(Wire):
    """Callers who each wait for an answer before they ask again."""

    callers: int = Field(ge=1)


class Plan(Wire):
    """One phase of load. `first` is the number of its first body, so that no phase repeats another's."""

    url: str
    load: Load
    loop: OpenLoop | ClosedLoop
    duration_s: float = Field(gt=0)
    timeout_s: float = Field(gt=0)
    seed: int
    first: int = Field(ge=0)
    honour_retry_after: bool


class Sample(Wire):
    """What became of one request. Times in seconds after the phase's start, on one clock for all senders.

    `due` is when it was to be sent (in a closed loop: when it was), `sent` when the sender turned to it. `parts` is
    where the server says that the time went, in milliseconds. Counts are 0 where the answer holds none.
    """

    due: float
    sent: float
    done: float
    status: str
    tries: int = 1
    parts: dict[str, float] = Field(default_factory=dict)
    batch_tokens: int = 0
    batch_solutions: int = 0
    tokens: int = 0
    tokens_computed: int = 0
    failed_items: int = 0

    @property
    def latency_s(self) -> float:
        """From when it was due: what a caller waited who did not know that the sender was late."""
        return self.done - self.due

    @property
    def lag_s(self) -> float:
        """How late the sender was."""
        return self.sent - self.due

    @property
    def answered(self) -> bool:
        return self.status == "200"

    def good(self, slo_s: float) -> bool:
        """Whether it was answered within the objective."""
        return self.answered and self.latency_s <= slo_s


_SAMPLES = TypeAdapter(list[Sample])


def encode_samples(samples: Sequence[Sample]) -> bytes:
    return _SAMPLES.dump_json(list(samples), exclude_defaults=True)


def decode_samples(content: bytes) -> list[Sample]:
    """Raises pydantic's `ValidationError`."""
    return _SAMPLES.validate_json(content)

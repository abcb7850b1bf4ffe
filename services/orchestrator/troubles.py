"""What may go wrong at the other side of a port, and what a solve makes of it. Knows ports' errors, no ports."""

from collections.abc import Sequence

import structlog

from services.core.contracts import ScoreResponse, SolutionScore
from services.core.errors import (
    DeadlineExceeded,
    Draining,
    E2HError,
    InternalError,
    NotReady,
    Overloaded,
    UpstreamContract,
    UpstreamUnavailable,
)
from services.orchestrator.run import Run

_log = structlog.get_logger("e2h.solver")
# What on_verifier_failure="majority" forgives: the verifier's troubles, not the caller's mistakes.
VERIFIER_TROUBLES = (NotReady, Draining, Overloaded, UpstreamUnavailable, UpstreamContract, InternalError)
# What ends the sampling and leaves the samples that have come.
GENERATOR_TROUBLES = (NotReady, Draining, Overloaded, UpstreamUnavailable, UpstreamContract, DeadlineExceeded)


def degrade(run: Run, error: E2HError) -> None:
    """Go on without scores where the request allows it, else raise `error`."""
    if run.request.on_verifier_failure == "fail":
        raise error
    _log.warning("verifier failed; voting by majority", code=error.code)
    run.degraded = True


def cut_by_generator(run: Run, error: E2HError) -> None:
    """Make do with what has come."""
    _log.warning("generator failed midway", sampled=len(run.arrived), code=error.code)
    run.cut_short(error)


def out_of_time() -> DeadlineExceeded:
    return DeadlineExceeded("the request's time budget ran out")


def checked(response: ScoreResponse, steps: Sequence[int]) -> list[SolutionScore]:
    """The other side's word, checked where it is received: as many solutions as were asked, each with a score for each
    of its `steps`, if it gives any. Raises `UpstreamContract`."""
    if len(response.solutions) != len(steps):
        raise UpstreamContract("the verifier gave a wrong number of solutions")
    for score, expected in zip(response.solutions, steps, strict=True):
        if score.error is None and len(score.steps) != (0 if response.kind == "orm" else expected):
            raise UpstreamContract("the verifier gave a wrong number of step scores")
    return response.solutions

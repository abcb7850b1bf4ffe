"""Where a sweep stops keeping its promise, and what becomes of it beyond. Pure."""

from collections.abc import Sequence

from services.cli.bench.summary import Phase
from services.core.contracts.base import Wire

# The share of what is asked for that must be answered within the objective.
_KEPT = 0.95


class Knee(Wire):
    """`rate`: the highest offered rate, in requests a second, of which 95 % were answered within the objective, with
    the 99th percentile within it too; None when no rate was.

    `peak` is the highest goodput of the sweep; `kept` the least goodput, as a share of it, at rates above the knee that
    ask for more than the peak, None when the sweep has none; `errors` by status what was neither answered nor 429 above
    the knee.
    """

    rate: float | None
    peak: float
    kept: float | None
    errors: dict[str, int]


def find_knee(phases: Sequence[Phase], slo_ms: float) -> Knee:
    """The knee of phases at several rates. Raises `ValueError` without any."""
    if not phases:
        raise ValueError("a knee needs phases")
    ordered = sorted(phases, key=lambda phase: phase.offered)
    keeping = [place for place, phase in enumerate(ordered) if keeps(phase, slo_ms)]
    beyond = ordered[keeping[-1] + 1 if keeping else 0 :]
    peak = max(phase.goodput.value for phase in ordered)
    # Just above the knee less may be asked for than the peak: that goodput is below it says nothing there.
    asked = [phase.goodput.value for phase in beyond if phase.offered > peak]
    return Knee(
        rate=ordered[keeping[-1]].offered if keeping else None,
        peak=peak,
        kept=min(asked) / peak if asked and peak else None,
        errors=_errors(beyond),
    )


def keeps(phase: Phase, slo_ms: float) -> bool:
    """Whether the service kept the objective at this rate."""
    p99 = phase.latency.get("p99")
    return p99 is not None and p99.value <= slo_ms and phase.goodput.value >= _KEPT * phase.offered


def _errors(phases: Sequence[Phase]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for phase in phases:
        for status, count in phase.errors.items():
            counts[status] = counts.get(status, 0) + count
    return counts

"""Two reports side by side: ratios new by old, with intervals. Pure."""

import math
from collections.abc import Iterator

from pydantic import JsonValue

from services.cli.bench.latency import Estimate
from services.cli.bench.report import Report
from services.cli.bench.summary import Phase
from services.core.contracts.base import Wire


class Ratio(Wire):
    """`new / old` of one figure of one phase."""

    phase: str
    figure: str
    old: float
    new: float
    ratio: Estimate

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 1."""
        low, high = self.ratio.low, self.ratio.high
        return low is not None and high is not None and not low <= 1.0 <= high


def compare(new: Report, old: Report) -> list[Ratio]:
    """Every figure of the phases that both have, by name. Empty when they have none in common."""
    before = {phase.name: phase for phase in old.phases}
    return [ratio for phase in new.phases if phase.name in before for ratio in _phase(phase, before[phase.name])]


def differing_settings(new: Report, old: Report) -> list[str]:
    """What makes the two hard to compare: settings, and facts of the machine, that are not the same in both."""
    a, b = ({**report.server, **report.settings, **_fixed(report.machine)} for report in (new, old))
    return [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]


def _fixed(machine: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in machine.items() if name != "load_before"}


def _phase(new: Phase, old: Phase) -> Iterator[Ratio]:
    pairs = [("throughput", new.throughput, old.throughput), ("goodput", new.goodput, old.goodput)]
    pairs += [(name, new.latency[name], old.latency[name]) for name in new.latency if name in old.latency]
    for figure, a, b in pairs:
        if a.value > 0 and b.value > 0:
            yield Ratio(phase=new.name, figure=figure, old=b.value, new=a.value, ratio=ratio_of(a, b))


def ratio_of(a: Estimate, b: Estimate) -> Estimate:
    """a / b of two independent positive estimates. No interval where one has none, or reaches zero.

    The interval is MOVER's on the logarithms (Zou and Donner 2008, Statistics in Medicine 27): it needs nothing but the
    two intervals, and keeps their skew.
    """
    ratio = a.value / b.value
    if a.low is None or a.high is None or b.low is None or b.high is None or min(a.low, b.low) <= 0:
        return Estimate(value=ratio)
    down = math.hypot(math.log(a.value / a.low), math.log(b.high / b.value))
    up = math.hypot(math.log(a.high / a.value), math.log(b.value / b.low))
    return Estimate(value=ratio, low=ratio * math.exp(-down), high=ratio * math.exp(up))

"""From the samples of a phase to what the report says of it. Pure."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from services.cli.bench.latency import Array, Estimate, curve, percentiles, share
from services.cli.bench.plan import TIMEOUT, ClosedLoop, OpenLoop, Plan, Sample
from services.core.contracts.base import Wire

# What e2h says when it is asked for more than it can do.
OVERLOAD = "429"
_SHARE_EDGES = [round(0.1 * place, 1) for place in range(11)]


class Histogram(Wire):
    """`counts[i]` values in [edges[i], edges[i + 1]), the last bin closed."""

    edges: list[float]
    counts: list[int]


class Lag(Wire):
    """How late the sender was, in milliseconds. `behind`: its lateness is no longer small beside the objective."""

    p50: float
    p99: float
    max: float
    behind: bool


class Phase(Wire):
    """One phase of load. Times in milliseconds, rates in requests a second over the time in which they were sent.

    `latency` is of requests that were answered with 200, and of those that had no answer when their time was over, with
    the time they had waited; `refused` of all other answers. `parts` are means over answers: what the server tells, and
    `rest`, which is network, JSON, HTTP on both sides, and waiting for the sender. `waste` is the share of a request's
    tokens that had to be computed because no other solution had computed them: the engine pads nothing. Batch
    histograms count a batch once for each request that it answered.
    """

    name: str
    loop: OpenLoop | ClosedLoop
    seconds: float
    requests: int
    offered: float
    throughput: Estimate
    goodput: Estimate
    statuses: dict[str, int]
    retried: int
    failed_items: int
    latency: dict[str, Estimate]
    latency_curve: list[tuple[float, float]]
    refused: dict[str, Estimate]
    parts: dict[str, float]
    tokens_a_second: float
    waste: float
    batch_tokens: Histogram
    batch_solutions: Histogram
    waste_shares: Histogram
    lag: Lag

    @property
    def loop_is_open(self) -> bool:
        return isinstance(self.loop, OpenLoop)

    @property
    def errors(self) -> dict[str, int]:
        """By status, what was neither answered nor refused for having too much to do."""
        return {status: count for status, count in self.statuses.items() if status not in ("200", OVERLOAD)}


def summarise(name: str, plan: Plan, samples: Sequence[Sample], slo_s: float) -> Phase:
    """The phase that `plan` describes, of all its samples in order of `due`."""
    answered = [sample for sample in samples if sample.answered]
    seconds = _seconds(plan, samples)
    offered = len(samples) / seconds
    waited = _milliseconds([s for s in samples if s.answered or s.status == TIMEOUT])
    tokens, computed = (sum(getattr(s, what) for s in answered) for what in ("tokens", "tokens_computed"))
    return Phase(
        name=name,
        loop=plan.loop,
        seconds=seconds,
        requests=len(samples),
        offered=offered,
        throughput=share([s.answered for s in samples], offered),
        goodput=share([s.good(slo_s) for s in samples], offered),
        statuses=dict(sorted(Counter(s.status for s in samples).items())),
        retried=sum(s.tries > 1 for s in samples),
        failed_items=sum(s.failed_items for s in answered),
        latency=percentiles(waited),
        latency_curve=curve(waited),
        refused=percentiles(_milliseconds([s for s in samples if not s.answered and s.status != TIMEOUT])),
        parts=_parts(answered),
        tokens_a_second=tokens / seconds,
        waste=computed / tokens if tokens else 0.0,
        batch_tokens=_doubling([s.batch_tokens for s in answered]),
        batch_solutions=_doubling([s.batch_solutions for s in answered]),
        waste_shares=_histogram([s.tokens_computed / s.tokens for s in answered if s.tokens], _SHARE_EDGES),
        lag=_lag(samples, slo_s),
    )


def _seconds(plan: Plan, samples: Sequence[Sample]) -> float:
    """An open loop's last request may be answered later, as its latency says; a closed loop ends with its answers."""
    if isinstance(plan.loop, OpenLoop):
        return plan.duration_s
    return max([plan.duration_s, *(sample.done for sample in samples)])


def _milliseconds(samples: Sequence[Sample]) -> Array:
    return np.asarray([sample.latency_s * 1000 for sample in samples], dtype=np.float64)


def _parts(answered: Sequence[Sample]) -> dict[str, float]:
    """The mean of each part, and of what the server does not account for."""
    if not answered:
        return {}
    names = list(dict.fromkeys(name for sample in answered for name in sample.parts))
    means = {name: float(np.mean([s.parts.get(name, 0.0) for s in answered])) for name in names}
    return {**means, "rest": max(0.0, float(_milliseconds(answered).mean()) - sum(means.values()))}


def _lag(samples: Sequence[Sample], slo_s: float) -> Lag:
    lags = np.asarray([sample.lag_s * 1000 for sample in samples] or [0.0])
    p50, p99, most = (float(value) for value in np.quantile(lags, [0.5, 0.99, 1.0], method="inverted_cdf"))
    # A twentieth: what the tester adds to a latency should not decide whether it was in time.
    return Lag(p50=p50, p99=p99, max=most, behind=p99 > slo_s * 1000 / 20)


def _doubling(values: Sequence[int]) -> Histogram:
    """Bins that double: 0, 1, 2, 4, ..."""
    edges = [0.0, 1.0]
    while edges[-1] <= max(values, default=0):
        edges.append(edges[-1] * 2)
    return _histogram(values, edges)


def _histogram(values: Sequence[float], edges: Sequence[float]) -> Histogram:
    counts, _ = np.histogram(np.asarray(values, dtype=np.float64), bins=np.asarray(edges))
    return Histogram(edges=[float(edge) for edge in edges], counts=[int(count) for count in counts])

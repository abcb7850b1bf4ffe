"""Measuring: methods take turns on each problem, every score is checked, the matrix-product limit beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.clock import Clock
from benchmarks.gemm import Gemms
from benchmarks.methods import Method, Scored, Values
from benchmarks.workload import Problem, Workload

# Largest difference of a probability from the plain forward's. bfloat16 keeps about three digits of each product.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


@dataclass
class Measured:
    """One method on one workload. `seconds` and `busy` have one sum over the problems for each round."""

    name: str
    computed: int = 0
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    difference: float = 0.0

    def add(self, round_: int, scored: Scored, expected: Values) -> None:
        if len(self.seconds) == round_:
            self.seconds.append(0.0)
            self.busy.append(0.0)
        if round_ == 0:
            self.computed += scored.computed
        self.seconds[round_] += scored.seconds
        self.busy[round_] += scored.busy
        self.difference = max(self.difference, largest_difference(scored.values, expected))

    def slower_than(self, other: "Measured", *, busy: bool = False) -> float:
        """The median over rounds of this method's time by the other's in the same round."""
        mine, others = (self.busy, other.busy) if busy else (self.seconds, other.seconds)
        return median(a / b for a, b in zip(mine, others, strict=True))


@dataclass
class Table:
    """What was measured on one workload. `limit` has one time for each round: the products of the distinct tokens."""

    workload: Workload
    methods: list[Measured]
    limit: list[Clock] = field(default_factory=list)

    def method(self, name: str) -> Measured | None:
        return next((measured for measured in self.methods if measured.name == name), None)

    def by_limit(self, measured: Measured) -> float:
        """The median over rounds of a method's time by the limit's in the same round, as `Clock.own` measures both."""
        own = [
            (busy if limit.single else seconds) / limit.own
            for seconds, busy, limit in zip(measured.seconds, measured.busy, self.limit, strict=True)
        ]
        return median(own)


def largest_difference(found: Values, expected: Values) -> float:
    """The largest difference of two sets of scores; infinite where one is not a number. Raises on other counts."""
    differences = [
        abs(a - b)
        for levels in zip(found, expected, strict=True)
        for sequences in zip(*levels, strict=True)
        for a, b in zip(*sequences, strict=True)
    ]
    return max((d if d == d else float("inf") for d in differences), default=0.0)


def measure(workload: Workload, methods: Sequence[Method], plain: Method, gemms: Gemms, rounds: int) -> Table:
    """`rounds` times every method on every problem, each held to the scores of `plain`, which may be one of them."""
    table = Table(workload, [Measured(method.name) for method in methods])
    expected: list[Values] = []
    for round_ in range(rounds):
        table.limit.append(gemms.limit([rows for problem in workload.problems for rows in problem.fresh]))
        for place, problem in enumerate(workload.problems):
            # Another begins each time, so that a machine that grows slower favours none.
            turn = {at: methods[at].score(problem) for at in _rotated(len(methods), round_ + place)}
            if round_ == 0:
                own = next((turn[at] for at, method in enumerate(methods) if method is plain), None)
                expected.append((own or plain.score(problem)).values)
            for at, scored in turn.items():
                table.methods[at].add(round_, scored, expected[place])
    return table


def warm_up(methods: Sequence[Method], workload: Workload) -> None:
    """Every method once on the first problem's first sequences: lazy initialisation is not what is measured."""
    few = Problem((workload.problems[0].levels[0][:2],))
    for method in methods:
        method.score(few)


def _rotated(count: int, by: int) -> list[int]:
    return [(place + by) % count for place in range(count)]

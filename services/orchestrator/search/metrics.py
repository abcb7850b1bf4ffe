"""What the orchestrator counts of searches: how deep they went, and what became of the continuations they drew."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram

# What becomes of a continuation: it goes on; it ended its solution; it was cut (tokens, context, or the verifier cannot
# read it); it is the same as a sibling; or others are better.
Fate = Literal["kept", "finished", "cut", "duplicate", "pruned"]


class SearchMetrics:
    """One observation a search, one count a continuation; strategies and fates are closed sets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._levels = Histogram(
            "e2h_search_levels",
            "Steps that a search went deep",
            ("strategy",),
            registry=registry,
            buckets=(1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233),
        )
        self._continuations = Counter(
            "e2h_search_continuations_total",
            "Continuations that searches drew, by what became of them",
            ("strategy", "fate"),
            registry=registry,
        )

    def searched(self, strategy: str, levels: int) -> None:
        self._levels.labels(strategy).observe(levels)

    def count(self, strategy: str, fate: Fate, continuations: int) -> None:
        self._continuations.labels(strategy, fate).inc(continuations)

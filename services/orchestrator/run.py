"""What one solve has gathered so far: its samples, their scores, token counts and clock. No IO."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from services.core.aggregation import Aggregation, aggregate
from services.core.answers import extract_answer
from services.core.contracts import Completion, SolutionScore, SolveRequest
from services.core.errors import E2HError
from services.core.voting import Candidate, Strategy

Phase = Literal["generate", "verify"]


@dataclass(eq=False)
class Sample:
    """A completion with its steps, its answer, and its score once there is one. Duplicates share `original`'s."""

    completion: Completion
    steps: list[str]
    score: SolutionScore | None = None
    original: "Sample | None" = None
    answer: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.answer = extract_answer(self.completion.text, truncated=self.truncated)

    @property
    def index(self) -> int:
        return self.completion.index

    @property
    def truncated(self) -> bool:
        return self.completion.finish_reason != "stop"

    @property
    def scored(self) -> SolutionScore | None:
        """The score of this text, wherever it was computed; None when there is none or it failed."""
        score = (self.original or self).score
        return score if score is not None and score.error is None else None

    def candidate(self, how: Aggregation | None) -> Candidate:
        """This sample as the vote sees it."""
        return Candidate(self.index, self.answer, self.value(how), self.truncated)

    def value(self, how: Aggregation | None) -> float | None:
        """The aggregated score."""
        scored = self.scored
        if scored is None or how is None:
            return None
        return aggregate([step.score for step in scored.steps], scored.outcome, how)


@dataclass(eq=False)
class Run:
    """One solve under way."""

    request: SolveRequest
    generator: str
    began: float
    observe: "Callable[[Run, Sample], None] | None" = None
    verifier: str | None = None
    aggregation: Aggregation | None = None
    degraded: bool = False
    cut: E2HError | None = None  # what ended it before all samples were made and scored
    prompt_tokens: int = 0
    verifier_tokens: int = 0
    verifier_tokens_computed: int = 0
    arrived: list[Sample] = field(default_factory=list)
    ended_ms: dict[Phase, float] = field(default_factory=dict)
    _by_text: dict[str, Sample] = field(default_factory=dict)
    _lowest_index: dict[str, int] = field(default_factory=dict)

    @property
    def samples(self) -> list[Sample]:
        """In index order, however they arrived."""
        return sorted(self.arrived, key=lambda s: s.index)

    @property
    def partial(self) -> bool:
        return self.cut is not None

    @property
    def answerable(self) -> bool:
        """Whether what has come can be voted on."""
        return any(sample.scored for sample in self.arrived) if self.scores_wanted else bool(self.arrived)

    @property
    def scores_wanted(self) -> bool:
        return self.request.strategy.needs_scores and not self.degraded

    @property
    def voting_strategy(self) -> Strategy:
        return Strategy.MAJORITY if self.degraded else self.request.strategy

    @property
    def voting_aggregation(self) -> Aggregation | None:
        """None under `degraded`: scores that came in before the verifier failed decide nothing."""
        return None if self.degraded else self.aggregation

    def add(self, sample: Sample) -> Sample:
        """Take a sample in; returns the first arrival with the same text, which is the sample itself when new."""
        self.arrived.append(sample)
        text = sample.completion.text
        self._lowest_index[text] = min(sample.index, self._lowest_index.get(text, sample.index))
        original = self._by_text.setdefault(text, sample)
        if original is not sample:
            sample.original = original
        self.notify(sample)
        return original

    def cut_short(self, error: E2HError) -> None:
        """The rest will not come; the first reason counts."""
        self.cut = self.cut or error

    def first_twin(self, sample: Sample) -> int:
        """The lowest index among samples of the same text: which of them arrived first is chance, this is not."""
        return self._lowest_index[sample.completion.text]

    def notify(self, sample: Sample) -> None:
        if self.observe is not None:
            self.observe(self, sample)

    def mark(self, phase: Phase) -> None:
        """Remember when a phase ended."""
        self.ended_ms[phase] = self.elapsed_ms()

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.began) * 1000

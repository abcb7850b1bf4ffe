"""What one solve has gathered so far: its samples, their scores, what it has told of them, its clock. No IO."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.core.aggregation import Aggregation, aggregate
from services.core.answers import extract_answer
from services.core.contracts import (
    CandidateEvent,
    Completion,
    Message,
    ScoredStep,
    ScoreEvent,
    SolutionScore,
    SolveEvent,
    SolveRequest,
)
from services.core.errors import E2HError
from services.core.voting import Candidate, Strategy

Phase = Literal["generate", "verify"]


@dataclass(eq=False)
class Sample:
    """A completion with its steps, its answer, and its score once there is one.

    Samples with the same text (`twins`) share the score of the one that came first (`original`).
    """

    completion: Completion
    steps: list[str]
    score: SolutionScore | None = None
    original: "Sample | None" = None
    twins: "list[Sample]" = field(default_factory=list)
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

    @property
    def judged(self) -> bool:
        """Whether the verifier has answered for this text, with scores or with an error."""
        return (self.original or self).score is not None

    def shown_steps(self) -> list[ScoredStep]:
        """The steps with their scores; an ORM scores none, they are shown all the same."""
        scored = self.scored
        scores: list[float | None] = [step.score for step in scored.steps] if scored else []
        scores += [None] * (len(self.steps) - len(scores))
        return [ScoredStep(text=text, score=score) for text, score in zip(self.steps, scores, strict=True)]

    def candidate(self, how: Aggregation | None) -> Candidate:
        """This sample as the vote sees it."""
        return Candidate(self.index, self.answer, self.value(how), self.truncated)

    def value(self, how: Aggregation | None) -> float | None:
        """The aggregated score."""
        return aggregated(self.scored, how)


def aggregated(score: SolutionScore | None, how: Aggregation | None) -> float | None:
    """The one number of a score; None where there is none, or it failed."""
    if score is None or score.error is not None or how is None:
        return None
    return aggregate([step.score for step in score.steps], score.outcome, how)


@dataclass(eq=False)
class Run:
    """One solve under way."""

    request: SolveRequest
    generator: str
    began: float
    context: Sequence[Message] = ()  # the turns of a conversation before the problem
    events: asyncio.Queue[SolveEvent | None] = field(default_factory=asyncio.Queue)
    verifier: str | None = None
    aggregation: Aggregation | None = None
    degraded: bool = False
    stopped_early: bool = False
    unscored: list[Sample] = field(default_factory=list)  # wait for a score request that can be sent
    scoring: int = 0  # score requests that are under way
    recount: bool = False  # something has changed since the last vote on the way
    counting: bool = False  # such a vote is being taken
    keys: dict[str, str] = field(default_factory=dict)  # classes of the answers that are known already
    cut: E2HError | None = None  # what ended it before all samples were made and scored
    prompt_tokens: int = 0
    completion_tokens: int = 0
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
        """Whether what has come can be voted on; what a search left unfinished cannot."""
        ended = [sample for sample in self.arrived if sample.completion.finish_reason != "cancelled"]
        return any(sample.scored for sample in ended) if self.scores_wanted else bool(ended)

    @property
    def scores_wanted(self) -> bool:
        return self.request.strategy.needs_scores and not self.degraded

    @property
    def votes_on_the_way(self) -> bool:
        """Whether someone wants to know the leader before the end: the caller, or the rule that stops early."""
        return self.request.stream or self.request.stop_rule is not None

    @property
    def voting_strategy(self) -> Strategy:
        return Strategy.MAJORITY if self.degraded else self.request.strategy.vote

    @property
    def voting_aggregation(self) -> Aggregation | None:
        """None under `degraded`: scores that came in before the verifier failed decide nothing."""
        return None if self.degraded else self.aggregation

    @property
    def decided(self) -> list[int]:
        """Samples whose part in the vote is final: nothing that is still to come changes it."""
        return [sample.index for sample in self.arrived if self.is_decided(sample)]

    def is_decided(self, sample: Sample) -> bool:
        """See `decided`."""
        return not self.scores_wanted or sample.judged or sample.answer is None or not sample.steps

    def candidates(self) -> list[Candidate]:
        """The samples so far as the vote sees them, in index order."""
        return [sample.candidate(self.voting_aggregation) for sample in self.samples]

    def add(self, sample: Sample) -> Sample:
        """Take a sample in; returns the first arrival with the same text, which is the sample itself when new."""
        self.arrived.append(sample)
        completion, text = sample.completion, sample.completion.text
        self._lowest_index[text] = min(sample.index, self._lowest_index.get(text, sample.index))
        original = self._by_text.setdefault(text, sample)
        if original is not sample:
            sample.original = original
            original.twins.append(sample)
        self.tell(
            CandidateEvent(
                index=sample.index,
                text=text,
                answer=sample.answer,
                finish_reason=completion.finish_reason,
                tokens=completion.tokens,
                seed=completion.seed,
            )
        )
        if sample.judged:
            self._tell_score(sample)
        return original

    def judge(self, sample: Sample, score: SolutionScore) -> None:
        """Take in the verifier's answer for `sample`, which is that of all samples with the same text."""
        sample.score = score
        for scored in (sample, *sample.twins):
            self._tell_score(scored)

    def cut_short(self, error: E2HError) -> None:
        """The rest will not come; the first reason counts."""
        self.cut = self.cut or error

    def first_twin(self, sample: Sample) -> int:
        """The lowest index among samples of the same text: which of them arrived first is chance, this is not."""
        return self._lowest_index[sample.completion.text]

    def tell(self, event: SolveEvent) -> None:
        """To whoever follows this solve."""
        self.events.put_nowait(event)

    def _tell_score(self, sample: Sample) -> None:
        scored, score = sample.scored, (sample.original or sample).score
        self.tell(
            ScoreEvent(
                index=sample.index,
                steps=sample.shown_steps(),
                outcome=scored.outcome if scored else None,
                score=sample.value(self.aggregation),
                first_error=scored.first_error if scored else None,
                error=score.error.code if score and score.error else None,
            )
        )

    def mark(self, phase: Phase) -> None:
        """Remember when a phase ended, which it does once."""
        self.ended_ms.setdefault(phase, self.elapsed_ms())

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.began) * 1000

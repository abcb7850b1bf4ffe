"""Choosing among scored candidates: best_of_n, majority, weighted. Pure; the result does not depend on their order.

Weighted voting sums the scores of all candidates with an equal answer (Uesato et al., 2022, "RM-weighted"; Sun et
al., 2024, section 4.2). Candidates without an answer, truncated or unscored do not vote.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.core.equivalence import canonical_key


class Strategy(StrEnum):
    """Which candidate wins."""

    WEIGHTED = "weighted"
    BEST_OF_N = "best_of_n"
    MAJORITY = "majority"

    @property
    def needs_scores(self) -> bool:
        return self is not Strategy.MAJORITY


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sample as the vote sees it: its place among the samples, its answer, its aggregated score."""

    index: int
    answer: str | None
    score: float | None
    truncated: bool = False

    def exclusion(self, strategy: Strategy) -> str | None:
        """Why this candidate does not vote under `strategy`; None when it does."""
        if self.answer is None:
            return "truncated" if self.truncated else "no_answer"
        if self.score is None and strategy.needs_scores:
            return "not_scored"
        return None


@dataclass(frozen=True, slots=True)
class AnswerClass:
    """The candidates that gave the same answer. `members` are candidate indices in ascending order."""

    answer: str
    members: tuple[int, ...]
    weight: float
    best_score: float | None
    best_member: int

    @property
    def votes(self) -> int:
        return len(self.members)


@dataclass(frozen=True, slots=True)
class Selection:
    """The outcome of a vote: classes with the winner first. Empty when no candidate could vote."""

    strategy: Strategy
    classes: tuple[AnswerClass, ...]

    @property
    def winner(self) -> AnswerClass | None:
        return self.classes[0] if self.classes else None

    @property
    def answer(self) -> str | None:
        return self.winner.answer if self.winner else None

    @property
    def index(self) -> int | None:
        """The candidate to show: the best-scored member of the winning class."""
        return self.winner.best_member if self.winner else None

    @property
    def voters(self) -> int:
        """How many candidates had a vote."""
        return sum(c.votes for c in self.classes)

    @property
    def margin(self) -> float:
        """The winner's share of the deciding weight minus the runner-up's: 1 when unopposed, 0 when empty."""
        strengths = [_strength(c, self.strategy) for c in self.classes]
        total = math.fsum(strengths)
        if total <= 0.0:
            return 0.0
        runner_up = strengths[1] if len(strengths) > 1 else 0.0
        return (strengths[0] - runner_up) / total


def select(
    candidates: Iterable[Candidate],
    strategy: Strategy,
    key: Callable[[str], str] = canonical_key,
) -> Selection:
    """Group the voting candidates by equal answer and put the winner first.

    `key` names the class of an answer. Ties between classes go to the higher best score, then to the lower index.
    """
    voters = sorted((c for c in candidates if c.exclusion(strategy) is None), key=lambda c: c.index)
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for voter in voters:
        groups[key(voter.answer or "")].append(voter)
    classes = [_answer_class(group, strategy) for group in groups.values()]
    classes.sort(key=lambda c: _rank(c, strategy))
    return Selection(strategy=strategy, classes=tuple(classes))


def _answer_class(group: Sequence[Candidate], strategy: Strategy) -> AnswerClass:
    scores = [c.score for c in group if c.score is not None]
    best = min(group, key=lambda c: (-_score_or_lowest(c.score), c.index))
    # A majority vote has no weights but its votes; scores that happen to be known do not enter it.
    weight = math.fsum(scores) if strategy.needs_scores else float(len(group))
    return AnswerClass(
        answer=_most_frequent_spelling(group),
        members=tuple(c.index for c in group),
        weight=weight,
        best_score=max(scores) if scores else None,
        best_member=best.index,
    )


def _most_frequent_spelling(group: Sequence[Candidate]) -> str:
    # Counter keeps first-seen order among equals, and the group is in index order: ties go to the earliest.
    return Counter(c.answer or "" for c in group).most_common(1)[0][0]


def _rank(answers: AnswerClass, strategy: Strategy) -> tuple[float, float, int]:
    return (-_strength(answers, strategy), -_score_or_lowest(answers.best_score), answers.best_member)


def _strength(answers: AnswerClass, strategy: Strategy) -> float:
    match strategy:
        case Strategy.MAJORITY:
            return float(answers.votes)
        case Strategy.WEIGHTED:
            return answers.weight
        case Strategy.BEST_OF_N:
            return _score_or_lowest(answers.best_score)


def _score_or_lowest(score: float | None) -> float:
    """For ordering only: an unscored candidate comes after every scored one; it never adds weight."""
    return score if score is not None else -1.0

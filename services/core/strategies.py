"""How a solve finds its candidates and which of them wins: a vote among samples, or a search step by step. Pure."""

from enum import StrEnum

from services.core.voting import Strategy


class SolveStrategy(StrEnum):
    """The `strategy` of a solve: the rules of `Strategy` over n samples, and two searches over steps.

    `beam` keeps the best partial solutions of one tree; `dvts` (diverse verifier tree search) the best one in each of
    several trees (Snell et al., 2024, arXiv 2408.03314; Beeching et al., 2024, "Scaling test-time compute").
    """

    WEIGHTED = "weighted"
    BEST_OF_N = "best_of_n"
    MAJORITY = "majority"
    BEAM = "beam"
    DVTS = "dvts"

    @property
    def searches(self) -> bool:
        """Whether solutions are grown step by step, under the verifier's eyes, and not sampled whole."""
        return self in (SolveStrategy.BEAM, SolveStrategy.DVTS)

    @property
    def vote(self) -> Strategy:
        """The rule that chooses among finished solutions: of a beam the best score, of several trees the weighted
        vote."""
        match self:
            case SolveStrategy.BEAM:
                return Strategy.BEST_OF_N
            case SolveStrategy.DVTS:
                return Strategy.WEIGHTED
            case _:
                return Strategy(self.value)

    @property
    def needs_scores(self) -> bool:
        return self.vote.needs_scores

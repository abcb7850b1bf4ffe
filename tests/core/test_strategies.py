"""Strategies of a solve: which search, and by which rule the winner is chosen."""

import pytest

from services.core.strategies import SolveStrategy
from services.core.voting import Strategy


@pytest.mark.parametrize("strategy", list(Strategy))
def test_every_rule_of_voting_is_a_strategy_of_its_own_name_that_searches_nothing(strategy: Strategy) -> None:
    assert SolveStrategy(strategy.value).vote is strategy
    assert not SolveStrategy(strategy.value).searches


@pytest.mark.parametrize(
    ("strategy", "vote"), [(SolveStrategy.BEAM, Strategy.BEST_OF_N), (SolveStrategy.DVTS, Strategy.WEIGHTED)]
)
def test_a_search_ends_in_a_vote_that_needs_scores(strategy: SolveStrategy, vote: Strategy) -> None:
    assert (strategy.searches, strategy.vote, strategy.needs_scores) == (True, vote, True)

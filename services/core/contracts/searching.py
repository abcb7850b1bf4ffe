"""How a step-level search goes (`search` of `POST /v1/solve`), and which fields it does not go with. Pure."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.aggregation import Aggregation
from services.core.contracts.base import MAX_SAMPLES, MAX_STEPS, Wire
from services.core.strategies import SolveStrategy


class SearchOptions(Wire):
    """`beam_width` partial solutions (or trees, under dvts) with `expand` continuations each, `max_steps` steps deep.

    The continuations of one step are at most as many as the samples of a solve, the steps as those of a solution.
    """

    beam_width: int = Field(default=4, ge=1, le=MAX_SAMPLES)
    expand: int = Field(default=4, ge=1, le=MAX_SAMPLES)
    max_steps: int = Field(default=40, ge=1, le=MAX_STEPS)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.continuations > MAX_SAMPLES:
            raise PydanticCustomError("too_long", f"beam_width x expand is at most {MAX_SAMPLES}")
        return self

    @property
    def continuations(self) -> int:
        """How many are drawn at each step."""
        return self.beam_width * self.expand


def only_of_a_search(search: SearchOptions | None, strategy: SolveStrategy | None) -> SearchOptions | None:
    """Refuse `search` where nothing is searched."""
    if search is not None and strategy is not None and not strategy.searches:
        raise PydanticCustomError("unsupported_parameter", "search is of the strategies beam and dvts")
    return search


def no_outcome(aggregation: Aggregation | None, strategy: SolveStrategy | None) -> Aggregation | None:
    """Refuse the score of a whole solution where parts of one are to be scored."""
    if aggregation is Aggregation.OUTCOME and strategy is not None and strategy.searches:
        raise PydanticCustomError(
            "unsupported_parameter", "a search scores partial solutions; outcome is the score of a whole one"
        )
    return aggregation

"""The orchestrator's contract: `POST /v1/solve` with the events of its stream, `POST /v1/vote`. Pure."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from services.core.aggregation import Aggregation
from services.core.contracts.base import (
    MAX_SAMPLES,
    MAX_STEPS,
    MAX_TEXT_CHARS,
    NonBlank,
    Probability,
    Problem,
    Wire,
    at_most_one,
)
from services.core.contracts.generation import FinishReason, SolveSampling, refuse_identical_samples
from services.core.contracts.searching import SearchOptions, no_outcome, only_of_a_search
from services.core.stopping import EarlyStop, can_stop_early
from services.core.strategies import SolveStrategy
from services.core.voting import Strategy


def _no_number(choice: Any) -> Any:
    if not isinstance(choice, bool | str):  # 1 equals true, and is not meant
        raise PydanticCustomError("invalid_body", 'Input should be false, true, "lossless" or "confident"')
    return choice


# As a caller writes it: true is lossless.
EarlyStopChoice = Annotated[Literal[False, True, "lossless", "confident"], BeforeValidator(_no_number)]


def _as_solve_strategy(named: Any) -> Any:
    return SolveStrategy(named.value) if isinstance(named, Strategy) else named


# In Python a rule of voting names itself.
StrategyChoice = Annotated[SolveStrategy, BeforeValidator(_as_solve_strategy, json_schema_input_type=SolveStrategy)]


class SolveRequest(Wire):
    """`POST /v1/solve`: sample n solutions or search for some, score their steps, choose an answer.

    `n` is of whole samples: how many continuations a search draws, `search` says.
    """

    problem: Problem
    strategy: StrategyChoice = SolveStrategy.WEIGHTED
    n: int = Field(default=8, ge=1, le=MAX_SAMPLES)
    aggregation: Aggregation | None = None
    sampling: SolveSampling = Field(default_factory=SolveSampling)
    search: SearchOptions | None = None
    early_stop: EarlyStopChoice = False
    on_verifier_failure: Literal["fail", "majority"] = "fail"
    include_candidates: bool = True
    reference: NonBlank | None = None
    stream: bool = False

    @field_validator("early_stop")
    @classmethod
    def _vote_can_be_decided_early(cls, wanted: EarlyStopChoice, info: ValidationInfo) -> EarlyStopChoice:
        strategy = info.data.get("strategy")
        if wanted is False or strategy is None:
            return wanted
        if strategy.searches:
            raise PydanticCustomError("unsupported_parameter", "a search has no samples left that it could save")
        if not can_stop_early(strategy.vote):
            raise PydanticCustomError(
                "unsupported_parameter", "best_of_n cannot stop early: the last sample may have the highest score"
            )
        return wanted

    @field_validator("n")
    @classmethod
    def _samples_are_whole(cls, n: int, info: ValidationInfo) -> int:
        strategy = info.data.get("strategy")
        if strategy is not None and strategy.searches:  # a default is not looked at
            raise PydanticCustomError(
                "unsupported_parameter", "a search draws beam_width x expand continuations a step; leave n out"
            )
        return n

    @field_validator("search")
    @classmethod
    def _of_a_search(cls, search: SearchOptions | None, info: ValidationInfo) -> SearchOptions | None:
        return only_of_a_search(search, info.data.get("strategy"))

    @field_validator("aggregation")
    @classmethod
    def _of_steps(cls, aggregation: Aggregation | None, info: ValidationInfo) -> Aggregation | None:
        return no_outcome(aggregation, info.data.get("strategy"))

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        refuse_identical_samples(self.most_candidates, self.sampling.temperature)
        return self

    @property
    def shape(self) -> SearchOptions:
        """How a search goes: as `search` says, or by default."""
        return self.search or SearchOptions()

    @property
    def most_candidates(self) -> int:
        """How many samples there are at once: n, or the continuations of one step of a search."""
        return self.shape.continuations if self.strategy.searches else self.n

    @property
    def stop_rule(self) -> EarlyStop | None:
        """What `early_stop` asks for."""
        if isinstance(self.early_stop, bool):
            return EarlyStop.LOSSLESS if self.early_stop else None
        return EarlyStop(self.early_stop)


class ScoredStep(Wire):
    """A step with the probability that it is right; None when the verifier gave no step scores."""

    text: str
    score: float | None


class SolveCandidate(Wire):
    """One sample, or one solution that a search came to, with its evidence.

    `excluded` says why it has no vote (`no_answer`, `truncated`, `not_scored`), or `duplicate_of:<i>`: the same text
    as candidate i, scored once, voting all the same. What a search did not finish is `truncated`; `finish_reason` is
    then `length` when steps, tokens or context ended, `cancelled` when the time did. Of a search, `tokens` are those of
    the solution, and `seed` is that of its last step.
    """

    index: int
    text: str
    answer: str | None
    steps: list[ScoredStep]
    outcome: float | None
    score: float | None
    first_error: int | None
    finish_reason: FinishReason
    tokens: int
    seed: int
    excluded: str | None


class SolveClass(Wire):
    """The candidates of one answer; `weight` is what `weighted` sums, or the votes under `majority`."""

    answer: str
    members: list[int]
    votes: int
    weight: float
    best_score: float | None


class ModelPair(Wire):
    """The models that answered. `verifier` is None when none was asked."""

    generator: str
    verifier: str | None


class SolveUsage(Wire):
    """Real token counts over all finished samples, and all steps that a search drew, kept or not; what a cancelled one
    had written is told to nobody. A search reads the problem and the steps so far, as a prompt, at every step."""

    prompt_tokens: int
    completion_tokens: int
    verifier_tokens: int
    verifier_tokens_computed: int


class SolveTimings(Wire):
    """Wall time in milliseconds. `generate` and `verify` end, from the start, when the last sample and the last score
    came (they overlap); `vote` is what choosing took after them; `total` is all."""

    generate: float
    verify: float
    vote: float
    total: float


class SolveResponse(Wire):
    """The answer of `POST /v1/solve` with its evidence; of a search, the solutions that it finished or had to leave.

    `used` is the number of samples that the answer rests on; an early stop leaves it below n.
    """

    id: str
    model: ModelPair
    problem: str
    answer: str | None
    solution: str | None
    strategy: SolveStrategy
    aggregation: Aggregation | None
    margin: float
    correct: bool | None
    classes: list[SolveClass]
    candidates: list[SolveCandidate]
    partial: bool
    stopped_early: bool
    used: int
    degraded: Literal["majority"] | None
    usage: SolveUsage
    timings_ms: SolveTimings


class CandidateEvent(Wire):
    """A sample has come; its score follows in a `ScoreEvent`, if the strategy asks for scores."""

    index: int
    text: str
    answer: str | None
    finish_reason: FinishReason
    tokens: int
    seed: int


class ScoreEvent(Wire):
    """Candidate `index` is scored. `error` is the code of what kept the verifier from it; it then has no vote."""

    index: int
    steps: list[ScoredStep]
    outcome: float | None
    score: float | None
    first_error: int | None
    error: str | None


class VoteEvent(Wire):
    """The leader among the `n` candidates that have a vote so far."""

    answer: str | None
    margin: float
    n: int


SolveEvent = CandidateEvent | ScoreEvent | VoteEvent | SolveResponse


class VoteCandidate(Wire):
    """A candidate whose scores are known: `answer` or `text`; `step_scores` or an aggregated `score`."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [at_most_one("answer", "text"), at_most_one("step_scores", "score")]}
    )

    answer: NonBlank | None = None
    text: Annotated[NonBlank, Field(max_length=MAX_TEXT_CHARS)] | None = None
    step_scores: list[Probability] | None = Field(default=None, max_length=MAX_STEPS)
    score: Probability | None = None
    outcome: Probability | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.answer is not None and self.text is not None:
            raise PydanticCustomError("invalid_body", "give either answer or text")
        if self.step_scores is not None and self.score is not None:
            raise PydanticCustomError("invalid_body", "give either step_scores or score")
        return self


class VoteRequest(Wire):
    """`POST /v1/vote`: choose again without sampling or scoring. `n` uses the first n candidates."""

    candidates: list[VoteCandidate] = Field(min_length=1, max_length=MAX_SAMPLES)
    strategy: Strategy = Strategy.WEIGHTED
    aggregation: Aggregation | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)


class VoteResponse(Wire):
    """The answer of `POST /v1/vote`; `index` is the candidate to show."""

    answer: str | None
    margin: float
    classes: list[SolveClass]
    index: int | None

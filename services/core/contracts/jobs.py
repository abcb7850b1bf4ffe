"""The contract of evaluation jobs: what is submitted, how one stands, its events and its results. Pure."""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.contracts.base import MAX_SAMPLES, Wire
from services.core.contracts.evaluation import DatasetSource, EvaluationPlan
from services.core.contracts.generation import SolveSampling, refuse_identical_samples
from services.core.seeds import MAX_SEED
from services.core.voting import Strategy

JobStatus = Literal["queued", "running", "finishing", "completed", "completed_with_errors", "cancelled", "failed"]
ENDED: frozenset[JobStatus] = frozenset({"completed", "completed_with_errors", "cancelled", "failed"})


class JobRequest(Wire):
    """`POST /v1/jobs`: sample every problem of a data set `n` times and score what comes.

    `strategies` are those the report shows; sampling does not depend on them. `chunk` samples of one problem are one
    item of work, which is what a lost worker costs.
    """

    dataset: DatasetSource
    n: int = Field(default=64, ge=1, le=MAX_SAMPLES)
    chunk: int = Field(default=16, ge=1, le=MAX_SAMPLES)
    strategies: list[Strategy] = Field(default_factory=lambda: list(Strategy), min_length=1)
    sampling: SolveSampling = Field(default_factory=lambda: SolveSampling(temperature=1.0))
    seed: int = Field(default=0, ge=0, le=MAX_SEED)

    @model_validator(mode="after")
    def _one_seed(self) -> Self:
        refuse_identical_samples(self.n, self.sampling.temperature)
        if self.sampling.seed is not None:
            raise PydanticCustomError("invalid_body", "a job has one seed: `seed`, not `sampling.seed`")
        return self

    @property
    def plan(self) -> EvaluationPlan:
        """What the samples depend on."""
        return EvaluationPlan(n=self.n, chunk=self.chunk, seed=self.seed, sampling=self.sampling)


class JobError(Wire):
    """Why a job failed, or an item was given up. `item` counts the job's items from 0."""

    code: str
    message: str
    item: int | None = None
    problem: int | None = None


class JobProgress(Wire):
    """How far a job is: the `progress` event. Items are chunks of samples of one problem."""

    status: JobStatus
    items_total: int
    items_done: int
    failed: int


class Job(JobProgress):
    """`GET /v1/jobs/{id}`. Times are in seconds; `eta_s` is None while nothing is done yet, and at the end.

    `retried` counts items that were put off because an engine was busy or away; `errors` are those of given up items,
    at most 20 of them.
    """

    id: str
    strategies: list[Strategy]
    plan: EvaluationPlan
    retried: int
    age_s: float
    eta_s: float | None
    error: JobError | None = None
    errors: list[JobError] = Field(default_factory=list)


class JobList(Wire):
    """`GET /v1/jobs`: newest first."""

    object: Literal["list"] = "list"
    data: list[Job]


class JobSample(Wire):
    """One sample of a result line; `scores` are its steps', `error` why it has none."""

    text: str
    answer: str | None
    correct: bool | None
    scores: list[float]
    outcome: float | None
    finish_reason: str
    tokens: int
    seed: int
    error: str | None


class JobResult(Wire):
    """One line of `GET /v1/jobs/{id}/results`: a problem with its samples, in index order."""

    id: str
    problem: str
    answer: str | None
    level: int | None
    subject: str | None
    samples: list[JobSample]

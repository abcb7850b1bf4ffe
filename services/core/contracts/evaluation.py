"""What an evaluation is made of: the problems of a data set and the plan of its samples. Pure."""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.aggregation import Aggregation
from services.core.contracts.base import MAX_SAMPLES, NonBlank, Problem, Wire
from services.core.contracts.generation import SolveSampling, refuse_identical_samples
from services.core.contracts.scoring import VerifierInfo, VerifierKind
from services.core.seeds import MAX_SEED

EASY_LEVELS = (1, 2, 3)
HARD_LEVELS = (4, 5)
MAX_ITEMS = 100_000  # problems of one evaluation; the largest public set of this field has 12,500


class EvaluationProblem(Wire):
    """One problem of a data set. `answer` is its gold answer; `level` 1-3 is easy, 4-5 hard (Sun et al., 2024)."""

    id: NonBlank
    problem: Problem
    answer: NonBlank | None = None
    level: int | None = Field(default=None, ge=1, le=5)
    subject: str | None = None


class DatasetSource(Wire):
    """Where the problems of an evaluation come from: exactly one of `name`, `path` and `items`.

    `name` is `math500`, `gsm8k`, `lab` or a data set of the Hugging Face hub (`owner/name`), `path` a JSONL or Parquet
    file. `columns` maps our fields (`problem`, `answer`, `level`, `subject`, `id`) to the file's, where they are not
    found by their usual names. `limit` takes the first so many of each level, where there are levels.
    """

    name: NonBlank | None = None
    path: NonBlank | None = None
    items: list[EvaluationProblem] | None = Field(default=None, min_length=1, max_length=MAX_ITEMS)
    split: NonBlank | None = None
    limit: int | None = Field(default=None, ge=1)
    columns: dict[Literal["id", "problem", "answer", "level", "subject"], NonBlank] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(given is not None for given in (self.name, self.path, self.items)) != 1:
            raise PydanticCustomError("invalid_body", "give one of name, path and items")
        return self


class EvaluationPlan(Wire):
    """How many samples of each problem are drawn, and how.

    `chunk` samples of one problem are one item of work: what a lost worker costs. The seed of a sample depends on
    (`seed`, problem id, sample index) alone, so neither `chunk` nor the number of workers changes what is drawn.
    """

    n: int = Field(default=64, ge=1, le=MAX_SAMPLES)
    chunk: int = Field(default=16, ge=1, le=MAX_SAMPLES)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    sampling: SolveSampling = Field(default_factory=lambda: SolveSampling(temperature=1.0))

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        refuse_identical_samples(self.n, self.sampling.temperature)
        return self


class ServedVerifier(Wire):
    """What the report says of the verifier that scored the samples."""

    id: str
    kind: VerifierKind
    default_aggregation: Aggregation

    @classmethod
    def of(cls, info: VerifierInfo) -> Self:
        """From what a verifier tells of itself."""
        return cls(id=info.id, kind=info.kind, default_aggregation=info.default_aggregation)


class Manifest(Wire):
    """All that the samples of an evaluation depend on. Two with equal manifests belong together.

    `digest` is over the problems, in order. Nothing here tells when or where, so that equal work gives equal bytes.
    """

    version: int = 1
    dataset: str
    digest: str
    problems: int
    plan: EvaluationPlan
    generator: str
    verifier: ServedVerifier | None

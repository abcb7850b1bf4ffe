"""A sample with all that a vote needs, and its columns in Parquet. Pure: no file.

One row holds samples of one problem; each list has one element a sample, in index order. `completions` and `scores`
are what tools that read the outputs of search-and-learn look for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from services.core.aggregation import Aggregation, aggregate
from services.orchestrator.evaluation.items import Item


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """One sample of a problem.

    `answer` is None where the text gives none; `key` names its class among the answers of the problem; `correct` is
    None where the problem has no gold answer. `scores` are the steps' probabilities, `outcome` that of an ORM or OPRM.
    `verifier_tokens` is the length of the verifier's input. `error` is the code of why the sample was not scored.
    """

    text: str
    answer: str | None
    key: str | None
    correct: bool | None
    finish_reason: str
    tokens: int
    logprob: float | None
    seed: int
    scores: tuple[float, ...]
    outcome: float | None
    verifier_tokens: int
    error: str | None

    def score(self, how: Aggregation) -> float | None:
        """The aggregated score; None when it has none."""
        return aggregate(self.scores, self.outcome, how)

    @property
    def truncated(self) -> bool:
        """Whether the sample ended before its model did."""
        return self.finish_reason != "stop"


# Of each field of `ScoredSample`, in order: its list column and the type of an element.
_COLUMNS: dict[str, tuple[str, pa.DataType]] = {
    "text": ("completions", pa.string()),
    "answer": ("answers", pa.string()),
    "key": ("keys", pa.string()),
    "correct": ("correct", pa.bool_()),
    "finish_reason": ("finish_reasons", pa.string()),
    "tokens": ("completion_tokens", pa.int32()),
    "logprob": ("logprobs", pa.float64()),
    "seed": ("seeds", pa.int64()),
    "scores": ("scores", pa.list_(pa.float64())),
    "outcome": ("outcomes", pa.float64()),
    "verifier_tokens": ("verifier_tokens", pa.int32()),
    "error": ("errors", pa.string()),
}
SAMPLE_FIELDS = [pa.field(column, pa.list_(kind)) for column, kind in (_COLUMNS[f.name] for f in fields(ScoredSample))]
PART_SCHEMA = pa.schema([pa.field("ordinal", pa.int32()), pa.field("first", pa.int32()), *SAMPLE_FIELDS])


def part_table(item: Item, samples: Sequence[ScoredSample]) -> pa.Table:
    """The samples of one item as a table of one row."""
    row = {"ordinal": item.ordinal, "first": item.first, **columns_of(samples)}
    return pa.Table.from_pylist([row], schema=PART_SCHEMA)


def columns_of(samples: Sequence[ScoredSample]) -> dict[str, list[Any]]:
    """Column name to one value a sample."""
    return {column: [getattr(sample, name) for sample in samples] for name, (column, _) in _COLUMNS.items()}


def samples_of(row: Mapping[str, Any]) -> list[ScoredSample]:
    """The samples of a row that was read back."""
    columns = {name: row[column] for name, (column, _) in _COLUMNS.items()}
    columns["scores"] = map(tuple, columns["scores"])
    return [ScoredSample(*values) for values in zip(*columns.values(), strict=True)]

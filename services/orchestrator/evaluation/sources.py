"""The problems of a data set, read and checked: built-in sets, the Hugging Face hub, JSONL, Parquet.

All or nothing: a fault names the line it is in. Blocking: call it from a thread.
"""

from services.core.contracts import DatasetSource, EvaluationProblem


def load_problems(source: DatasetSource) -> list[EvaluationProblem]:
    """The problems in order. Raises `InvalidRequest` (with the line), `NotFound`, `TooManyItems`."""
    if source.items is not None:
        return source.items[: source.limit]
    raise NotImplementedError

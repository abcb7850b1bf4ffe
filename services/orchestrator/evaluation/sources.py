"""The problems of a data set, read and checked: built-in sets, the Hugging Face hub, JSONL, Parquet.

All or nothing: a fault names the line it is in. Blocking: call it from a thread.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, islice, zip_longest
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

from services.core.contracts import DatasetSource, EvaluationProblem
from services.core.errors import InvalidRequest, NotFound, UpstreamUnavailable
from services.orchestrator.evaluation.files import SUFFIXES, json_lines, read_rows
from services.orchestrator.evaluation.rows import problems_of


@dataclass(frozen=True, slots=True)
class _OnTheHub:
    """A data set of the hub: what a built-in name stands for."""

    repository: str
    config: str | None = None
    split: str = "test"


BUILT_IN = {
    # Lightman et al. (2023): the 500 problems of MATH's test set that PRM800K leaves out of training.
    "math500": _OnTheHub("HuggingFaceH4/MATH-500"),
    # Cobbe et al. (2021).
    "gsm8k": _OnTheHub("openai/gsm8k", config="main"),
}
LAB = "lab"


def load_problems(source: DatasetSource, data_dir: Path | None = None) -> list[EvaluationProblem]:
    """The problems, in the data set's order. Copies of built-in sets in `data_dir` go before the hub.

    Raises `InvalidRequest` (which tells the line), `NotFound`, `TooManyItems`, and `UpstreamUnavailable` when the hub
    does not answer.
    """
    if source.items is not None:
        problems = problems_of(_numbered("item", (item.model_dump() for item in source.items)), {})
    elif source.path is not None:
        problems = problems_of(read_rows(source.path, "dataset"), source.columns)
    else:
        problems = _named(source.name or "", source, data_dir)
    return problems if source.limit is None else _even(problems, source.limit)


def shown_name(source: DatasetSource) -> str:
    """What a report calls the data set: no path of the machine."""
    if source.name is not None:
        return source.name if source.split is None else f"{source.name} ({source.split})"
    return "items" if source.path is None else PurePosixPath(source.path).name


def _named(name: str, source: DatasetSource, data_dir: Path | None) -> list[EvaluationProblem]:
    if name == LAB:
        content = files("services.orchestrator.evaluation").joinpath("data/lab.jsonl").read_bytes()
        return problems_of(json_lines(content, "dataset"), source.columns)
    kept = None if data_dir is None else _copy(name, data_dir)
    if kept is not None and source.split is None:
        return problems_of(read_rows(str(kept), "dataset"), source.columns)
    if name not in BUILT_IN and "/" not in name:
        raise NotFound(f"no such data set: use {', '.join([*BUILT_IN, LAB])}, OWNER/NAME of the hub, or a path")
    return _from_hub(BUILT_IN.get(name, _OnTheHub(name)), source)


def _copy(name: str, directory: Path) -> Path | None:
    if name not in BUILT_IN:
        return None
    stems = (name, f"{name}_{BUILT_IN[name].split}")
    return next((p for stem in stems for end in SUFFIXES if (p := directory / f"{stem}{end}").is_file()), None)


def _from_hub(hub: _OnTheHub, source: DatasetSource) -> list[EvaluationProblem]:
    import datasets  # two seconds to import, and only the hub needs it
    from datasets.exceptions import DatasetNotFoundError

    try:
        table = datasets.load_dataset(hub.repository, hub.config, split=source.split or hub.split)
    except DatasetNotFoundError:
        raise NotFound("the hub has no such data set, or it is gated", param="dataset") from None
    except ValueError as error:  # an unknown split or configuration
        raise InvalidRequest(f"the data set cannot be loaded: {error}", param="dataset") from None
    except (ConnectionError, OSError) as error:
        raise UpstreamUnavailable(
            f"the hub cannot be reached ({type(error).__name__}); a copy in E2H_EVAL_DATA_DIR serves as well"
        ) from None
    return problems_of(_numbered("row", table), source.columns)


def _numbered(kind: str, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{kind} {number}", row) for number, row in enumerate(rows, start=1))


def _even(problems: Sequence[EvaluationProblem], limit: int) -> list[EvaluationProblem]:
    """The first `limit` problems, taken from the levels in turn, so that easy and hard are both there."""
    levels: dict[int | None, list[tuple[int, EvaluationProblem]]] = defaultdict(list)
    for place, problem in enumerate(problems):
        levels[problem.level].append((place, problem))
    order = sorted(levels, key=lambda level: (level is None, level))
    in_turn = filter(None, chain.from_iterable(zip_longest(*(levels[level] for level in order))))
    return [problem for _, problem in sorted(islice(in_turn, limit), key=itemgetter(0))]

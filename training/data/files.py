"""Rows of a file or a hub data set, each with its line number. Knows no format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.records import DataError

Row = Mapping[str, Any]
_SPLIT = "train"


def rows(path: str, split: str | None = None) -> Iterator[tuple[str, Row]]:
    """`(place, row)` of every row; `place` ("train.jsonl line 3") is for messages.

    `path` is a .jsonl, .json (a list) or .parquet file, a pattern of such files (`phase*_train.jsonl`, in order of
    their names), or a hub id `owner/name`. Raises `DataError`.
    """
    files = sorted(Path(path).parent.glob(Path(path).name))
    if not files:
        yield from _hub_rows(path, split or _SPLIT)
        return
    if split is not None:
        raise DataError(f"{files[0].name} is a file, and only hub data sets have a split")
    for file in files:
        reader = _READERS.get(file.suffix)
        if reader is None:
            raise DataError(f"{file.name} is none of {', '.join(_READERS)}")
        for line, row in reader(file):
            place = f"{file.name} line {line}"
            if not isinstance(row, Mapping):
                raise DataError(f"{place} is not an object")
            yield place, row


def _jsonl(file: Path) -> Iterator[tuple[int, Any]]:
    with file.open("rb") as source:
        for line, text in enumerate(source, start=1):
            if text.strip():
                try:
                    yield line, json.loads(text)
                except ValueError:  # of the decoder, or of the encoding
                    raise DataError(f"{file.name} line {line} is not JSON") from None


def _json(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        items = json.loads(file.read_bytes())
    except ValueError:
        raise DataError(f"{file.name} is not JSON") from None
    if not isinstance(items, list):
        raise DataError(f"{file.name} is not a list of objects")
    return enumerate(items, start=1)


def _parquet(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        table = pq.ParquetFile(file)
        line = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                line += 1
                yield line, row
    except (pa.ArrowInvalid, OSError):
        raise DataError(f"{file.name} is not a Parquet file") from None


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}


def _hub_rows(name: str, split: str) -> Iterator[tuple[str, Row]]:
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).suffix in _READERS:
        raise DataError("a data file does not exist, and its path is no hub id")
    import datasets  # slow to import, and only the hub needs it

    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises whatever it likes for what is not there
        raise DataError(f"the hub data set cannot be loaded ({type(error).__name__})") from error
    for line, row in enumerate(table, start=1):
        yield f"{name} row {line}", row


def text_of(place: str, row: Row, name: str) -> str:
    """The text in a column. Raises `DataError` when there is none."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place} has no text in {name}")
    return value

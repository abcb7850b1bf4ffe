"""Rows of a JSONL or Parquet file under any URL that fsspec knows, each with the line or row that it stands in.

Blocking: call it from a thread.
"""

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from services.core.errors import InvalidRequest, NotFound

SUFFIXES = (".jsonl", ".parquet")


def read_rows(url: str, param: str) -> Iterator[tuple[str, Any]]:
    """Each row with its place ("line 3"). `param` is what a fault is about.

    Raises `NotFound`, `InvalidRequest` that tells the line that is no JSON.
    """
    if not url.endswith(SUFFIXES):
        raise InvalidRequest(f"a file that ends in {' or '.join(SUFFIXES)} is needed", param=param)
    content = _content(url, param)
    return _parquet(content, param) if url.endswith(".parquet") else json_lines(content, param)


def json_lines(content: bytes, param: str) -> Iterator[tuple[str, Any]]:
    """The lines that hold something."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError):
            raise InvalidRequest(f"line {number} is not JSON", param=param, code="invalid_json") from None


def _parquet(content: bytes, param: str) -> Iterator[tuple[str, Any]]:
    try:
        rows = pq.read_table(BytesIO(content)).to_pylist()
    except (pa.ArrowException, OSError):
        raise InvalidRequest("the file is not Parquet", param=param) from None
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row


def _content(url: str, param: str) -> bytes:
    try:
        fs, path = fsspec.core.url_to_fs(url)
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        raise NotFound("there is no such file", param=param) from None
    except (ValueError, ImportError, OSError) as error:
        raise NotFound(f"the file cannot be read ({type(error).__name__})", param=param) from None

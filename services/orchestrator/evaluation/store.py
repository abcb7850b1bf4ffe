"""Where the samples of an evaluation are kept: Parquet files under a URL that fsspec knows (a directory, s3, gs).

    manifest.json     what the samples depend on; a second run with another manifest is refused
    problems.parquet  the data set
    parts/NAME.parquet   one item each, written once, whole
    samples.parquet   everything, in order, one row a problem: made of the parts when all are there

Blocking: call it from a thread.
"""

import posixpath
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from services.core.contracts import EvaluationProblem, Manifest
from services.core.errors import InvalidRequest, NotFound
from services.orchestrator.evaluation.items import Item
from services.orchestrator.evaluation.predictions import prediction_columns, prediction_names
from services.orchestrator.evaluation.samples import SAMPLE_FIELDS, ScoredSample, columns_of, part_table, samples_of

_PROBLEM_FIELDS = [
    pa.field("id", pa.string()),
    pa.field("problem", pa.string()),
    pa.field("answer", pa.string()),
    pa.field("level", pa.int32()),
    pa.field("subject", pa.string()),
]


@dataclass(frozen=True, slots=True)
class SampledProblem:
    """A problem with its samples, in index order."""

    problem: EvaluationProblem
    samples: tuple[ScoredSample, ...]


class ResultsStore:
    """The files of one evaluation."""

    def __init__(self, url: str) -> None:
        """Raises `InvalidRequest` when no file system knows the URL."""
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError):
            raise InvalidRequest("no file system is known for the results URL", param="results") from None

    def begin(self, manifest: Manifest, problems: Sequence[EvaluationProblem]) -> None:
        """Make the place ready, or find it as an earlier run left it.

        Raises `InvalidRequest` when it holds the samples of something else.
        """
        if self._fs.exists(self._path("manifest.json")):
            if self.manifest() != manifest:
                raise InvalidRequest(
                    "the results there belong to another evaluation (data set, plan or models); choose another place",
                    param="results",
                    code="results_mismatch",
                )
            return
        self._fs.makedirs(self._path("parts"), exist_ok=True)
        rows = [problem.model_dump() for problem in problems]
        self._write_table("problems.parquet", pa.Table.from_pylist(rows, schema=pa.schema(_PROBLEM_FIELDS)))
        self._write("manifest.json", manifest.model_dump_json(indent=1).encode() + b"\n")

    def manifest(self) -> Manifest:
        """What the samples depend on. Raises `NotFound` where there is no evaluation, or one of another version."""
        try:
            return Manifest.model_validate_json(self._fs.cat_file(self._path("manifest.json")))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("there is no evaluation at this place") from None
        except ValidationError:
            raise NotFound("the evaluation at this place is of another version, or damaged") from None

    def problems(self) -> list[EvaluationProblem]:
        """The data set, in order."""
        return [EvaluationProblem.model_validate(row) for row in self._read_table("problems.parquet").to_pylist()]

    def write_part(self, item: Item, samples: Sequence[ScoredSample], name: str | None = None) -> str:
        """Keep the samples of an item, whole or not at all; the part's name, which is the item's unless given."""
        if len(samples) != item.count:
            raise ValueError("an item has one sample for each of its indices")
        name = name or item.name
        self._write_table(posixpath.join("parts", f"{name}.parquet"), part_table(item, samples))
        return name

    def parts(self) -> set[str]:
        """The names of the parts that are there."""
        files = self._fs.ls(self._path("parts"), detail=False) if self._fs.exists(self._path("parts")) else []
        names = (posixpath.basename(file) for file in files)
        return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}

    def read_part(self, name: str) -> list[ScoredSample]:
        """The samples of one part."""
        (row,) = self._read_table(posixpath.join("parts", f"{name}.parquet")).to_pylist()
        return samples_of(row)

    @property
    def finished(self) -> bool:
        """Whether `samples.parquet` is there."""
        return bool(self._fs.exists(self._path("samples.parquet")))

    def finish(self, parts: Iterable[str] | None = None) -> None:
        """Make `samples.parquet` of these parts (all that are there, unless given), then remove the parts.

        Equal samples give equal bytes, in whatever order and by whomever they were made.
        """
        manifest = self.manifest()
        gathered = self._gather(self.parts() if parts is None else parts)
        rows = [
            {**problem.model_dump(), **columns_of(samples), **prediction_columns(samples, manifest)}
            for ordinal, problem in enumerate(self.problems())
            for samples in [gathered.get(ordinal, [])]
        ]
        shown = [pa.field(name, pa.string()) for name in prediction_names(manifest)]
        schema = pa.schema([*_PROBLEM_FIELDS, *SAMPLE_FIELDS, *shown])
        self._write_table("samples.parquet", pa.Table.from_pylist(rows, schema=schema))
        self._fs.rm(self._path("parts"), recursive=True)

    def read(self) -> Iterator[SampledProblem]:
        """Every problem that has samples, in order: of a finished evaluation, or of the parts of one under way."""
        problems = self.problems()
        if self.finished:
            rows = self._read_table("samples.parquet").to_pylist()
            gathered = {ordinal: samples_of(row) for ordinal, row in enumerate(rows)}
        else:
            gathered = self._gather(self.parts())
        for ordinal, problem in enumerate(problems):
            if gathered.get(ordinal):
                yield SampledProblem(problem, tuple(gathered[ordinal]))

    def report(self) -> bytes | None:
        """`report.json`, where one was written."""
        try:
            return bytes(self._fs.cat_file(self._path("report.json")))
        except FileNotFoundError:
            return None

    def _gather(self, parts: Iterable[str]) -> dict[int, list[ScoredSample]]:
        """Ordinal to its samples, in index order."""
        gathered: dict[int, list[ScoredSample]] = {}
        for name in sorted(parts):  # a name sorts as its item does
            (row,) = self._read_table(posixpath.join("parts", f"{name}.parquet")).to_pylist()
            gathered.setdefault(row["ordinal"], []).extend(samples_of(row))
        return gathered

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _read_table(self, name: str) -> pa.Table:
        with self._fs.open(self._path(name), "rb") as file:
            return pq.read_table(file)

    def _write_table(self, name: str, table: pa.Table) -> None:
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        self._write(name, buffer.getvalue().to_pybytes())

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all: an object store does so by itself, a file system by renaming."""
        path = self._path(name)
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.pipe_file(path, content)
            return
        aside = f"{path}.{uuid.uuid4().hex}.part"
        try:
            self._fs.pipe_file(aside, content)
            self._fs.mv(aside, path)
        except BaseException:
            self._fs.rm(aside)
            raise

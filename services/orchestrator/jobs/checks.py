"""What a schema cannot check of a job's request: where data sets may be read, ids. Knows no redis."""

from services.core.contracts import DatasetSource
from services.core.errors import InvalidEventId, InvalidRequest
from services.orchestrator.evaluation.sources import BUILT_IN, LAB
from services.orchestrator.jobs.settings import JobSettings

_BY_NAME = (*BUILT_IN, LAB)
_MAX_EVENT_ID_DIGITS = 20


def allowed(source: DatasetSource, settings: JobSettings) -> DatasetSource:
    """The source as this server may read it: a path below the directory of data sets, a name that needs no leave.

    Raises `InvalidRequest`, the same whether there is such a file or not.
    """
    if source.path is not None:
        refused = InvalidRequest("no data set may be read there", param="dataset.path", code="path_not_allowed")
        if settings.data_dir is None or "\0" in source.path or "://" in source.path:
            raise refused
        root = settings.data_dir.resolve()
        path = (root / source.path).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise refused
        return source.model_copy(update={"path": str(path)})
    if source.name is not None and source.name not in _BY_NAME and not settings.hub_datasets:
        raise InvalidRequest(
            f"this server reads {', '.join(_BY_NAME)} by name, and no data sets of the hub",
            param="dataset.name",
            code="dataset_not_allowed",
        )
    return source


def checked_event_id(text: str) -> str:
    """The id in full. Raises `InvalidEventId`."""
    first, dash, second = text.partition("-")
    parts = (first, second) if dash else (first,)
    if not all(p.isascii() and p.isdecimal() and len(p) < _MAX_EVENT_ID_DIGITS for p in parts):
        raise InvalidEventId("Last-Event-ID is the id of an event of this stream", param="last-event-id")
    return text if dash else f"{text}-0"


def event_order(event_id: str) -> tuple[int, int]:
    """What sorts event ids as the stream does."""
    first, _, second = event_id.partition("-")
    return int(first), int(second)

"""What `e2h bench` writes and, with `--compare`, reads: one JSON document. Pure but for the file."""

import os
import platform
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from services.cli.bench.knee import Knee
from services.cli.bench.summary import Phase
from services.core.contracts.base import Wire
from services.core.errors import InvalidRequest
from services.runtime.machine import cores, processor


class Report(Wire):
    """All phases of one command. `peak` is the closed loop's highest throughput, in requests a second.

    `date` is in UTC. `server` is what was loaded: the URL, or that the demo was started here, and its settings.
    """

    format: Literal["e2h-bench-1"] = "e2h-bench-1"
    kind: Literal["verifier", "solve"]
    date: str
    version: str
    machine: dict[str, JsonValue]
    server: dict[str, JsonValue]
    settings: dict[str, JsonValue]
    slo_ms: float
    peak: float | None
    phases: list[Phase]
    knee: Knee | None


def write_report(report: Report, path: Path) -> None:
    """Raises `InvalidRequest` when the file cannot be written."""
    try:
        path.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {type(error).__name__}") from None


def read_report(path: Path) -> Report:
    """Raises `InvalidRequest` for a file that is none of ours."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {type(error).__name__}") from None
    except ValidationError:
        raise InvalidRequest(f"{path} is no report of e2h bench") from None


def describe_machine() -> dict[str, JsonValue]:
    """What sends the load, and with no `--url` answers it too: processor, cores, load before the run; no host name."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }

"""The dashboards, written as rows of `panels.py`, made into Grafana's JSON: `python make_dashboards.py`.

A dashboard is `dashboards/NAME.json`; tests/deploy checks that the files are what this makes, and that every metric in
them is one that a service exports. Standard library alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

from panels import DASHBOARDS, Panel

_DATASOURCE = {"type": "prometheus", "uid": "e2h-prometheus"}
_WIDTH, _HEIGHT, _A_ROW = 8, 8, 3


def dashboard(name: str) -> dict[str, Any]:
    """Grafana's JSON of one dashboard."""
    return {
        "uid": f"e2h-{name}",
        "title": f"e2h {name}",
        "tags": ["e2h"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(number, panel) for number, panel in enumerate(DASHBOARDS[name])],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + i), "datasource": _DATASOURCE, "expr": expression, "legendFormat": legend}
        for i, (legend, expression) in enumerate(panel.queries)
    ]
    place = {"x": number % _A_ROW * _WIDTH, "y": number // _A_ROW * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def text(name: str) -> str:
    """The file of one dashboard."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write every dashboard beside this file."""
    folder = Path(__file__).parent / "dashboards"
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(text(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

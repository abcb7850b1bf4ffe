"""Every metric that a dashboard, an alert or an autoscaler asks for is one that a service exports, with its labels."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.generator.admission import BoundedGenerator
from services.generator.metrics import GeneratorMetrics
from services.orchestrator.grading import GradingMetrics
from services.orchestrator.jobs.metrics import JobMetrics
from services.orchestrator.metrics import AdmissionMetrics, SolveMetrics
from services.orchestrator.routing import RoutingMetrics
from services.runtime.app import Lifecycle, build_app
from services.runtime.idempotency import IdempotentAnswers
from services.runtime.settings import RuntimeSettings
from services.verifier.cache import build_score_cache
from services.verifier.metrics import VerifierMetrics
from services.verifier.settings import VerifierSettings
from tests.deploy.reading import ROOT, documents, module
from tests.fakes import FakeGenerator

GRAFANA = ROOT / "deploy/grafana/dashboards"
MAKER = module("deploy/grafana/make_dashboards.py")
_NAME = re.compile(r"\be2h_[a-z0-9_]+")
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def exported() -> dict[str, set[str]]:
    """Names of series that the services export, each with its labels. Built as their composition roots build them."""
    registry = CollectorRegistry()
    for metrics in (
        GeneratorMetrics,
        VerifierMetrics,
        SolveMetrics,
        AdmissionMetrics,
        RoutingMetrics,
        GradingMetrics,
        JobMetrics,
    ):
        metrics(registry)
    BoundedGenerator(FakeGenerator([]), 1, registry)
    IdempotentAnswers(RuntimeSettings(), registry)
    settings = VerifierSettings(cache_url="redis://127.0.0.1:1/0")
    build_score_cache(settings, registry)
    runtime = RuntimeSettings(api_keys_file=ROOT / "no-keys.json")
    app = build_app(title="t", routers=[], bodies=[], lifecycle=Lifecycle(), registry=registry, settings=runtime)
    app.build_middleware_stack()  # what the layers count is registered with them
    found: dict[str, set[str]] = {}
    # What has labels and was never counted has no sample to collect: the metric objects know their own.
    for metric in registry._collector_to_names:
        kind, name, labels = metric._type, metric._name, set(metric._labelnames)  # type: ignore[attr-defined]
        for suffix in _SUFFIXES[kind]:
            found[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


EXPORTED = exported()


def queries() -> Iterator[tuple[str, str]]:
    """(where it stands, PromQL) of every dashboard, alert and autoscaler."""
    for path in sorted(GRAFANA.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            yield from ((f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"])
    yield from ((rule["alert"], rule["expr"]) for rule in alerts())
    for scaled in documents(ROOT / "deploy/kubernetes/components/autoscaling/scaled-objects.yaml"):
        for trigger in scaled["spec"]["triggers"]:
            yield f"scaling of the {scaled['metadata']['name']}", trigger["metadata"]["query"]


def alerts() -> Iterator[dict[str, Any]]:
    for group in documents(ROOT / "deploy/prometheus/rules.yml")[0]["groups"]:
        yield from group["rules"]


QUERIES = [(where, name) for where, query in queries() for name in sorted(set(_NAME.findall(query)))]


@pytest.mark.parametrize(("where", "name"), sorted({(where, name) for where, name in QUERIES}))
def test_a_metric_that_is_asked_for_is_exported(where: str, name: str) -> None:
    assert name in EXPORTED


@pytest.mark.parametrize(("where", "query"), sorted(set(queries())))
def test_a_query_selects_and_groups_by_labels_that_there_are(where: str, query: str) -> None:
    names = set(_NAME.findall(query))
    known = set().union(*(EXPORTED.get(name, set()) for name in names)) | {"job", "instance", "pod", "namespace"}
    selected = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', query))
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
    missing = (selected | grouped) - known
    assert not missing or not names <= EXPORTED.keys()  # an unknown metric is the other test's


def test_what_is_exported_is_looked_at_somewhere() -> None:
    asked = {name for _, name in QUERIES}
    bases = {name: re.sub("_(bucket|sum|count)$", "", name) for name in EXPORTED}
    looked_at = {bases[name] for name in asked}
    assert {base for base in bases.values() if base not in looked_at} == set()


def test_the_names_would_not_be_found_by_chance() -> None:
    assert "e2h_verifier_queue_seconds_bucket" in EXPORTED
    assert "e2h_verifier_queue_seconds" not in EXPORTED
    assert "e2h_solves" not in EXPORTED


@pytest.mark.parametrize("name", MAKER.DASHBOARDS)
def test_a_dashboards_file_is_what_its_rows_make(name: str) -> None:
    assert (GRAFANA / f"{name}.json").read_text(encoding="utf-8") == MAKER.text(name)


def test_every_alert_says_what_is_wrong_how_bad_it_is_and_is_in_the_list_of_incidents() -> None:
    incidents = (ROOT / "docs/guides/operations.md").read_text(encoding="utf-8")
    for rule in alerts():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"`{rule['alert']}`" in incidents

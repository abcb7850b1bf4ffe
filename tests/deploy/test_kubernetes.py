"""The kustomizations as `kubectl kustomize` renders them, against Kubernetes' schemas and the security programme."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic_settings import BaseSettings

from services.generator.settings import GeneratorSettings
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.settings import OrchestratorSettings
from services.runtime.settings import RuntimeSettings, unknown_variables
from services.verifier.settings import VerifierSettings
from tests.deploy.reading import ROOT

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

OVERLAYS = ("cpu-demo", "gpu")
WORKLOADS = {"Deployment", "StatefulSet", "Job"}
# Of KEDA and of the Prometheus operator, whose schemas are not Kubernetes' own.
FOREIGN = {"ScaledObject", "PodMonitor"}
Resource = dict[str, Any]


@cache
def rendered(overlay: str) -> tuple[Resource, ...]:
    folder = ROOT / "deploy/kubernetes/overlays" / overlay
    told = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout
    return tuple(yaml.safe_load_all(told))


def named(overlay: str, kind: str) -> dict[str, Resource]:
    return {resource["metadata"]["name"]: resource for resource in rendered(overlay) if resource["kind"] == kind}


def workloads(overlay: str) -> Iterator[Resource]:
    return (resource for resource in rendered(overlay) if resource["kind"] in WORKLOADS)


def pod(workload: Resource) -> Resource:
    return dict(workload["spec"]["template"]["spec"])


def containers(workload: Resource) -> list[Resource]:
    return [*pod(workload).get("initContainers", ()), *pod(workload)["containers"]]


def environment(overlay: str, kind: str, name: str) -> dict[str, Any]:
    return {told["name"]: told.get("value") for told in pod(named(overlay, kind)[name])["containers"][0]["env"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
class TestAnOverlay:
    def test_keeps_to_kubernetes_schemas(self, overlay: str) -> None:
        for resource in rendered(overlay):
            if resource["kind"] not in FOREIGN:
                kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)

    def test_gives_pods_no_rights(self, overlay: str) -> None:
        for workload in workloads(overlay):
            context = pod(workload)["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] > 0
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod(workload)["automountServiceAccountToken"] is False
            for container in containers(workload):
                rights = container["securityContext"]
                assert rights == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
        assert named(overlay, "Namespace")["e2h"]["metadata"]["labels"] == {
            "pod-security.kubernetes.io/enforce": "restricted"
        }

    def test_pins_images_and_bounds_memory(self, overlay: str) -> None:
        for workload in workloads(overlay):
            for container in containers(workload):
                assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-\w+)?", container["image"])
                assert container["resources"]["limits"]["memory"]
                assert container["resources"]["requests"]["cpu"]

    def test_probes_whatever_serves(self, overlay: str) -> None:
        for workload in workloads(overlay):
            if workload["kind"] == "Job":
                continue
            for container in pod(workload)["containers"]:
                assert {"readinessProbe", "livenessProbe"} <= container.keys()
                if (ready := container["readinessProbe"].get("httpGet")) is not None:
                    assert ready["path"] == "/ready"
                    assert container["livenessProbe"]["httpGet"]["path"] == "/health"

    def test_leaves_time_to_drain(self, overlay: str) -> None:
        settings = RuntimeSettings()
        for workload in workloads(overlay):
            if workload["kind"] != "Job":
                needed = settings.drain_grace_s + settings.drain_timeout_s
                assert pod(workload)["terminationGracePeriodSeconds"] > needed

    def test_every_selector_finds_the_pods_it_means(self, overlay: str) -> None:
        labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads(overlay)]
        for resource in rendered(overlay):
            spec = resource.get("spec", {})
            if resource["kind"] == "Service":
                selector = {"matchLabels": spec["selector"]}
            elif resource["kind"] in ("PodDisruptionBudget", "PodMonitor", "Deployment", "StatefulSet"):
                selector = spec["selector"]
            elif resource["kind"] == "NetworkPolicy":
                selector = spec["podSelector"]
            else:
                continue
            assert any(selects(selector, told) for told in labels), resource["metadata"]["name"]

    def test_every_port_of_a_service_is_one_of_its_pods(self, overlay: str) -> None:
        for name, service in named(overlay, "Service").items():
            workload = next(each for each in workloads(overlay) if each["metadata"]["name"] == name)
            ports = {port["name"]: port["containerPort"] for port in pod(workload)["containers"][0]["ports"]}
            assert {ports[port["targetPort"]] for port in service["spec"]["ports"]} == {
                port["port"] for port in service["spec"]["ports"]
            }

    def test_every_volume_is_mounted_and_every_mount_has_one(self, overlay: str) -> None:
        for workload in workloads(overlay):
            claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
            volumes = {volume["name"] for volume in pod(workload).get("volumes", ())} | claims
            mounts = {mount["name"] for container in containers(workload) for mount in container["volumeMounts"]}
            assert mounts == volumes

    def test_lets_nothing_in_or_out_but_by_a_rule(self, overlay: str) -> None:
        policies = {name: policy["spec"] for name, policy in named(overlay, "NetworkPolicy").items()}
        assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        open_to_all = {
            name for name, spec in policies.items() if any("from" not in rule for rule in spec.get("ingress", ()))
        }
        assert open_to_all == {"orchestrator"}
        way_out = {name for name, spec in policies.items() if any("to" not in rule for rule in spec.get("egress", ()))}
        assert way_out <= {"names", "fetch-models"}

    def test_has_a_disruption_budget_for_each_service(self, overlay: str) -> None:
        serving = {each["metadata"]["name"] for each in workloads(overlay) if each["kind"] != "Job"}
        assert set(named(overlay, "PodDisruptionBudget")) == serving

    def test_every_setting_that_a_container_gets_is_one(self, overlay: str) -> None:
        names = {
            told["name"]
            for workload in workloads(overlay)
            for container in containers(workload)
            for told in container.get("env", ())
            if told["name"].startswith("E2H_")
        }
        known: list[type[BaseSettings]] = [
            RuntimeSettings,
            GeneratorSettings,
            VerifierSettings,
            OrchestratorSettings,
            JobSettings,
        ]
        assert unknown_variables(known, dict.fromkeys(names, "")) == {}


def selects(selector: Resource, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    equal = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    inside = all(labels.get(told["key"]) in told["values"] for told in selector.get("matchExpressions", ()))
    return equal and inside


def test_the_orchestrator_asks_for_keys_but_in_the_demo() -> None:
    assert environment("gpu", "Deployment", "orchestrator")["E2H_API_KEYS_FILE"] == "/keys/keys.json"
    assert "E2H_INSECURE" not in environment("gpu", "Deployment", "orchestrator")
    assert environment("cpu-demo", "Deployment", "orchestrator")["E2H_INSECURE"] == "true"


def test_a_verifier_process_has_one_gpu_and_a_generator_as_many_as_it_splits_its_model_over() -> None:
    verifier = pod(named("gpu", "Deployment")["verifier"])["containers"][0]
    generator = pod(named("gpu", "StatefulSet")["generator"])["containers"][0]
    assert verifier["resources"]["limits"]["nvidia.com/gpu"] == 1
    parallel = environment("gpu", "StatefulSet", "generator")["E2H_GENERATOR_TENSOR_PARALLEL"]
    assert generator["resources"]["limits"]["nvidia.com/gpu"] == int(parallel)


def test_every_generator_is_known_to_whoever_asks_one() -> None:
    replicas = named("gpu", "StatefulSet")["generator"]["spec"]["replicas"]
    expected = ",".join(f"http://generator-{i}.generator:8101" for i in range(replicas))
    for name in ("orchestrator", "worker"):
        assert environment("gpu", "Deployment", name)["E2H_ORCHESTRATOR_GENERATOR_URL"] == expected


def test_what_is_scaled_is_there_and_its_bounds_hold_its_replicas() -> None:
    for scaled in named("gpu", "ScaledObject").values():
        spec = scaled["spec"]
        target = named("gpu", spec["scaleTargetRef"]["kind"])[spec["scaleTargetRef"]["name"]]
        assert spec["minReplicaCount"] <= target["spec"]["replicas"] <= spec["maxReplicaCount"]


def test_engines_in_the_gpu_overlay_cannot_change_their_models() -> None:
    for kind, name in (("StatefulSet", "generator"), ("Deployment", "verifier")):
        for container in containers(named("gpu", kind)[name]):
            mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "models")
            assert mount["readOnly"] is True

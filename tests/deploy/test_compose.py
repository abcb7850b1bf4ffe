"""docker-compose.yml against the security programme's row of containers, read as YAML: no engine is needed."""

import re
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from services.generator.settings import GeneratorSettings
from services.orchestrator.jobs.settings import JobSettings
from services.orchestrator.settings import OrchestratorSettings
from services.runtime.settings import RuntimeSettings, unknown_variables
from services.verifier.settings import VerifierSettings
from tests.deploy.reading import ROOT, compose, stages

STACK = compose()
PUBLIC = compose("deploy/compose.public.yml")
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
HARDENED = {**SERVICES, "keys": PUBLIC["services"]["keys"]}
ONE_SHOT = {"models", "secrets", "keys"}
OWN = {name for name, service in HARDENED.items() if service["image"].startswith("e2h-")}
ENGINES = {"generator", "verifier", "generator-cpu", "verifier-cpu"}


@pytest.mark.parametrize("name", HARDENED)
class TestAService:
    def test_cannot_write_its_root_or_gain_rights(self, name: str) -> None:
        service = HARDENED[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service
        assert "privileged" not in service
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])  # noqa: S108 - a path in a container

    def test_is_no_root(self, name: str) -> None:
        # Our own images say so themselves (test_images.py).
        if name not in OWN:
            assert re.fullmatch(r"[1-9]\d*:\d+", HARDENED[name]["user"])
        assert "root" not in str(HARDENED[name].get("user", ""))

    def test_has_bounds(self, name: str) -> None:
        assert HARDENED[name]["pids_limit"] > 0
        assert re.fullmatch(r"(\$\{\w+:-)?\d+[mg]\}?", HARDENED[name]["mem_limit"])

    def test_says_when_it_is_healthy_or_ends(self, name: str) -> None:
        service = HARDENED[name]
        if name in ONE_SHOT:
            assert service["healthcheck"] == {"disable": True}
        else:
            target = service.get("build", {}).get("target")
            assert "healthcheck" in service or stages()[target].last("HEALTHCHECK")

    def test_is_pinned(self, name: str) -> None:
        image = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", HARDENED[name]["image"])
        assert ":" in image
        assert not image.endswith(":latest")

    def test_shows_no_secret_in_its_environment(self, name: str) -> None:
        environment = HARDENED[name].get("environment", {})
        told = {key for key in environment if re.search(r"PASSWORD|SECRET|TOKEN(?!S)|REDIS_URL|API_KEY", key)}
        # A file's or a folder's name is no secret; the hub's token is the operator's own, for the one that fetches.
        assert told <= {"GF_SECURITY_ADMIN_PASSWORD__FILE", "E2H_SECRETS_DIR", "HF_TOKEN", "E2H_API_KEYS_FILE"}
        assert "HF_TOKEN" not in told or name == "models"


def test_only_the_orchestrator_and_grafana_publish_and_on_the_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"orchestrator", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_beyond_the_loopback_keys_are_asked_for() -> None:
    services = PUBLIC["services"]
    assert {name for name, service in services.items() if "ports" in service} == {"orchestrator", "grafana"}
    assert services["orchestrator"]["environment"]["E2H_INSECURE"] == "false"
    assert services["orchestrator"]["environment"]["E2H_API_KEYS_FILE"] == "/keys/keys.json"


def test_only_published_services_and_the_fetcher_of_models_have_a_way_out() -> None:
    assert STACK["networks"]["inside"]["internal"] is True
    outside = {name for name, service in SERVICES.items() if {"edge", "outside"} & set(service.get("networks", ()))}
    assert outside == {"orchestrator", "grafana", "models"}
    assert all("network_mode" not in service or service["network_mode"] == "none" for service in SERVICES.values())


def test_engines_that_take_no_keys_are_on_the_inner_network_alone() -> None:
    for name in ENGINES:
        assert SERVICES[name]["environment"]["E2H_INSECURE"] == "true"
        assert list(SERVICES[name]["networks"]) == ["inside"]


def test_a_profile_is_whole_and_none_starts_by_half() -> None:
    profiles = {name: set(service["profiles"]) for name, service in SERVICES.items()}
    assert {name for name, told in profiles.items() if told == {"gpu"}} == {"generator", "verifier", "models"}
    assert {name for name, told in profiles.items() if told == {"cpu"}} == {"generator-cpu", "verifier-cpu"}
    assert all(told == {"gpu", "cpu"} for name, told in profiles.items() if name not in ENGINES | {"models"})


def test_engines_of_either_profile_are_found_under_the_same_names() -> None:
    for name in ("generator", "verifier"):
        assert SERVICES[f"{name}-cpu"]["networks"]["inside"]["aliases"] == [name]


def test_gpus_are_reserved_by_the_gpu_profile_alone() -> None:
    reserved = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]
        for name, service in SERVICES.items()
        if "deploy" in service
    }
    assert set(reserved) == {"generator", "verifier"}
    assert all(device["capabilities"] == ["gpu"] for device in reserved.values())


def test_the_start_waits_for_health_in_order() -> None:
    for name in ("orchestrator", "worker"):
        waits = SERVICES[name]["depends_on"]
        assert set(waits) == {"secrets", "redis", *ENGINES}
        assert {waits[engine]["condition"] for engine in ENGINES} == {"service_healthy"}
        assert not any(waits[engine]["required"] for engine in ENGINES)
    assert SERVICES["verifier"]["depends_on"]["generator"]["condition"] == "service_healthy"


def test_a_stop_leaves_time_to_drain() -> None:
    settings = RuntimeSettings(_env_file=None)
    for name in OWN - ONE_SHOT:
        assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > settings.drain_grace_s + settings.drain_timeout_s


def test_what_must_survive_lies_in_a_named_volume() -> None:
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())]
    assert {mount for mount in mounts if not mount.startswith("./")} == set(STACK["volumes"])
    assert all((ROOT / mount).exists() for mount in mounts if mount.startswith("./"))


def test_every_setting_that_a_service_gets_is_one() -> None:
    given = {key for service in HARDENED.values() for key in service.get("environment", {}) if key.startswith("E2H_")}
    known: list[type[BaseSettings]] = [
        RuntimeSettings,
        GeneratorSettings,
        VerifierSettings,
        OrchestratorSettings,
        JobSettings,
    ]
    assert unknown_variables(known, dict.fromkeys(given, "")) == {}


def test_every_variable_of_the_stack_is_explained_and_every_explained_one_is_used() -> None:
    text = "".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("docker-compose.yml", "deploy/compose.public.yml")
    )
    used = set(re.findall(r"(?<!\$)\$\{(\w+)[:}]", text)) | {"COMPOSE_PROFILES", "COMPOSE_FILE"}
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    explained = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", example, flags=re.MULTILINE))
    assert explained == used

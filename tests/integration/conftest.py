"""The real stacks, started once for all tests that use them: three processes, and all in one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.job_stack import JobStack
from tests.integration.processes import Process, free_port, running, service
from tests.scheduling import STACKED

STACKS = {"three", "all_in_one", "vllm_server", "over_vllm"}
LONGEST = "tests/integration/test_experiment_process.py"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first. Raises `UsageError` for a file whose tests would start a stack in a process of their own."""
    paths = {item: item.nodeid.partition("::")[0] for item in items}
    using = {paths[item] for item in items if STACKS & set(getattr(item, "fixturenames", ()))}
    if forgotten := {path for path in using if path.startswith("tests/integration/")} - STACKED:
        raise pytest.UsageError(f"uses a running stack, but is not in tests/scheduling.py: {sorted(forgotten)}")
    items.sort(key=lambda item: (paths[item] != LONGEST, paths[item] not in STACKED))


@dataclass(frozen=True)
class Stack:
    """Three processes on the demo pair."""

    generator: Process
    verifier: Process
    orchestrator: Process


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Generator, verifier and orchestrator, a process each."""
    logs = tmp_path_factory.mktemp("three")
    with (
        service("verifier", logs / "verifier.log") as verifier,
        service("generator", logs / "generator.log") as generator,
        service(
            "orchestrator",
            logs / "orchestrator.log",
            E2H_ORCHESTRATOR_GENERATOR_URL=generator.url,
            E2H_ORCHESTRATOR_VERIFIER_URL=verifier.url,
        ) as orchestrator,
    ):
        yield Stack(generator, verifier, orchestrator)


@pytest.fixture(scope="session")
def all_in_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """`e2h up --jobs`."""
    port, directory = free_port(), tmp_path_factory.mktemp("up")
    arguments = ["-m", "services.cli.main", "up", "--port", str(port), "--jobs", "--jobs-dir", str(directory / "jobs")]
    with running(arguments, directory / "up.log", port) as process:
        yield process


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Someone's own OpenAI-compatible vLLM server, with the demo generator."""
    port = free_port()
    # What `vllm serve` runs; the CPU wheel's own command stumbles over its package name.
    arguments = ["-m", "vllm.entrypoints.openai.api_server", "--model", "models/generator", "--port", str(port)]
    arguments += ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with running(arguments, log, port, ready="/health", **settings) as server:
        yield server


@pytest.fixture
def over_vllm(three: Stack, vllm_server: Process, tmp_path: Path) -> Iterator[Process]:
    """An orchestrator whose samples come from that server."""
    environment = {
        "E2H_ORCHESTRATOR_OPENAI_BASE_URL": f"{vllm_server.url}/v1",
        "E2H_ORCHESTRATOR_OPENAI_MODEL": "models/generator",
        "E2H_ORCHESTRATOR_OPENAI_STYLE": "easy-to-hard",
        "E2H_ORCHESTRATOR_VERIFIER_URL": three.verifier.url,
    }
    with service("orchestrator", tmp_path / "orchestrator.log", **environment) as orchestrator:
        yield orchestrator


@pytest.fixture
def stack(shared: JobStack) -> Iterator[JobStack]:
    """The module's own `shared` stack of jobs, empty, and without workers afterwards."""
    with shared.client() as client:
        client.flushall()
    yield shared
    shared.close()

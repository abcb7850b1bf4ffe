"""The real stacks, started once for all tests that use them: three processes, and all in one."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.integration.processes import Process, free_port, running, service


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

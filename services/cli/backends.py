"""What stands behind an evaluation's ports: models in this process, or servers that run already."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from services.cli.settings import generator_settings, verifier_settings
from services.core.errors import InvalidRequest
from services.core.ports import Generator, Grader, Verifier
from services.orchestrator.evaluation.stored import StoredSamples
from services.orchestrator.grading import GradingMetrics, GradingPool, GradingSettings
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.upstreams import Upstreams
from services.runtime.settings import load_settings


@dataclass(frozen=True)
class Chosen:
    """What the command line said: a model for this process, or the address of a server; or samples that are there."""

    generator: str | None = None
    generator_url: str | None = None
    openai_url: str | None = None
    openai_model: str | None = None
    verifier: str | None = None
    verifier_url: str | None = None
    no_verifier: bool = False
    samples: StoredSamples | None = None

    def __post_init__(self) -> None:
        """Raises `InvalidRequest` when two of them contradict each other."""
        for group in (
            {"--generator": self.generator, "--generator-url": self.generator_url, "--openai-url": self.openai_url},
            {"--verifier": self.verifier, "--verifier-url": self.verifier_url, "--no-verifier": self.no_verifier},
        ):
            given = [option for option, value in group.items() if value]
            if len(given) > 1:
                raise InvalidRequest(f"{' and '.join(given)} exclude each other")
        if (self.openai_url is None) != (self.openai_model is None):
            raise InvalidRequest("--openai-url and --openai-model go together")

    @property
    def _remote_generator(self) -> bool:
        return bool(self.generator_url or self.openai_url)

    def _upstream_settings(self) -> OrchestratorSettings:
        given = {
            "generator_url": self.generator_url,
            "verifier_url": self.verifier_url,
            "openai_base_url": self.openai_url,
            "openai_model": self.openai_model,
        }
        return load_settings(OrchestratorSettings, **{name: value for name, value in given.items() if value})


@dataclass(frozen=True)
class Backends:
    """Started and ready."""

    generator: Generator
    verifier: Verifier | None
    grader: Grader


@asynccontextmanager
async def started(chosen: Chosen) -> AsyncIterator[Backends]:
    """The ports, until the block is left. Raises `ModelLoadError`."""
    async with AsyncExitStack() as stack:
        registry = CollectorRegistry()
        grader = GradingPool(load_settings(GradingSettings), GradingMetrics(registry))
        stack.push_async_callback(grader.close)
        await grader.start()
        upstreams = Upstreams(chosen._upstream_settings(), registry)
        stack.push_async_callback(upstreams.close)
        # The small model first, so that a broken one is told in seconds.
        verifier = await _verifier(chosen, upstreams, registry, stack)
        generator = await _generator(chosen, upstreams, registry, stack)
        yield Backends(generator, verifier, grader)


async def _verifier(
    chosen: Chosen, upstreams: Upstreams, registry: CollectorRegistry, stack: AsyncExitStack
) -> Verifier | None:
    if chosen.no_verifier:
        return None
    if chosen.verifier_url:
        return upstreams.verifier
    from services.verifier.cache import build_score_cache  # torch: seconds to import, not needed with a server
    from services.verifier.metrics import VerifierMetrics
    from services.verifier.service import LocalVerifier

    settings = verifier_settings(chosen.verifier)
    local = LocalVerifier(settings, VerifierMetrics(registry), build_score_cache(settings, registry))
    await local.start()
    stack.push_async_callback(local.close)
    return local


async def _generator(
    chosen: Chosen, upstreams: Upstreams, registry: CollectorRegistry, stack: AsyncExitStack
) -> Generator:
    if chosen.samples is not None:
        return chosen.samples
    return upstreams.generator if chosen._remote_generator else await _engine(chosen, registry, stack)


async def _engine(chosen: Chosen, registry: CollectorRegistry, stack: AsyncExitStack) -> Generator:
    from services.generator.engine import VllmGenerator  # vllm: seconds to import
    from services.generator.metrics import GeneratorMetrics

    engine = VllmGenerator(generator_settings(chosen.generator), GeneratorMetrics(registry))
    stack.push_async_callback(engine.close)
    await engine.start()
    return engine

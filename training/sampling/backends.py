"""What stands behind the sampling port: training's composition root, and its only door to the services' engines.

`local`: transformers in this process. `vllm`: the generator service's own engine, started for the model at hand and
stopped after the work. `http`: a generator service that someone runs; it serves the model that it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from prometheus_client import CollectorRegistry
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from services.core.contracts import Completion, EvaluationProblem, GenerateRequest, NonBlank, Sampling
from services.core.seeds import derive_seed
from services.generator.engine import VllmGenerator
from services.generator.metrics import GeneratorMetrics
from services.generator.settings import GeneratorSettings
from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.transport import upstream
from training.recipes.config import Part, Run
from training.recipes.loading import load_causal_for_sampling, load_tokenizer
from training.sampling.local import LocalSampler
from training.sampling.port import GeneratorSampler, Sampler

_GPU_MEMORY_SHARE = 0.6
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10.0, 600.0


class SamplingPart(Part):
    """How solutions are drawn, `n` of each problem.

    `url` is that of a generator service, for backend `http`. `gpu_memory_share` is what backend `vllm` takes of a GPU:
    0.6 unless given, for the verifier is on it as well.
    """

    backend: Literal["local", "vllm", "http"] = "local"
    url: NonBlank | None = None
    gpu_memory_share: float | None = Field(default=None, gt=0.0, le=1.0)
    n: int = Field(default=8, ge=1, le=1024)
    temperature: float = Field(default=1.0, gt=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(default=512, ge=1)

    @model_validator(mode="after")
    def _options_go_with_their_backend(self) -> Self:
        if (self.backend == "http") != (self.url is not None):
            raise PydanticCustomError("url", "url goes with backend http, and only with it")
        if self.gpu_memory_share is not None and self.backend != "vllm":
            raise PydanticCustomError("gpu_memory_share", "gpu_memory_share goes with backend vllm alone")
        return self

    def requests(self, problems: Sequence[EvaluationProblem], seed: int) -> list[GenerateRequest]:
        """One request a problem, each with a seed of its own."""
        return [
            GenerateRequest(
                problem=problem.problem,
                n=self.n,
                sampling=Sampling(
                    temperature=self.temperature,
                    top_p=self.top_p,
                    max_tokens=self.max_tokens,
                    seed=derive_seed(seed, place),
                ),
            )
            for place, problem in enumerate(problems)
        ]


def sampler_of(part: SamplingPart, model: str, run: Run) -> Sampler:
    """The sampler of `model` (a folder or hub id). Backend `http` takes no model: the service has its own."""
    if part.backend == "local":
        return LocalSampler(load_causal_for_sampling(model, run), load_tokenizer(model))
    if part.backend == "vllm":
        share = part.gpu_memory_share or _GPU_MEMORY_SHARE
        return EngineSampler(GeneratorSettings(model=model, prompt_style="easy-to-hard", gpu_memory_share=share))
    return HttpSampler(str(part.url))


class EngineSampler:
    """The generator service's engine for the length of one call: loaded, used, stopped."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self._settings = settings

    def sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        """Raises `ModelLoadError`."""
        return asyncio.run(self._sample(requests))

    async def _sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        generator = VllmGenerator(self._settings, GeneratorMetrics(CollectorRegistry()))
        try:
            await generator.start()
            return await GeneratorSampler(generator).sample_here(requests)
        finally:
            await generator.close()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


class HttpSampler:
    """A generator service over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url

    def sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        """Raises `UpstreamUnavailable`, `UpstreamContract`, or what the service answers."""
        return asyncio.run(self._sample(requests))

    async def _sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        connection: Any = upstream(
            "generator", self._url, connect_timeout_s=_CONNECT_TIMEOUT_S, read_timeout_s=_READ_TIMEOUT_S
        )
        client = HttpGenerator(connection)
        try:
            return await GeneratorSampler(client).sample_here(requests)
        finally:
            await client.close()

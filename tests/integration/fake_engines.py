"""A generator and a verifier in a process of their own, deterministic, that count what they are asked.

    python -m tests.integration.fake_engines GENERATOR_PORT VERIFIER_PORT SECONDS_A_REQUEST

Sample i of a request follows from its seed alone. `GET /v1/models/calls` on the generator's port answers how often each
sample was asked for, in all.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator

import uvicorn
from fastapi import FastAPI

from services.core.contracts import Completion, GenerateDone, GenerateRequest, GenerationUsage, ModelInfo
from services.core.seeds import derive_seed
from tests.fakes import FakeVerifier, solution
from tests.serving import generator_app, verifier_app


class CountingGenerator:
    """A `Generator` whose texts follow from their seeds."""

    def __init__(self, seconds: float) -> None:
        self.calls: Counter[str] = Counter()
        self._seconds = seconds

    async def info(self) -> ModelInfo:
        return ModelInfo(id="counting-generator", context_length=512)

    async def ready(self) -> str | None:
        return None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        self.calls.update(f"{request.problem}:{index}" for index in request.sample_indices)
        await asyncio.sleep(self._seconds)
        for index in reversed(request.sample_indices):
            seed = derive_seed(request.sampling.seed or 0, index)
            text = solution(str(seed % 7), f"It begins with {seed}.", f"It ends with {seed % 1000}.")
            yield Completion(index=index, text=text, tokens=9, finish_reason="stop", logprob=-seed % 97 / 8, seed=seed)
        usage = GenerationUsage(prompt_tokens=3, completion_tokens=9 * request.n)
        yield GenerateDone(id="gen", model="counting-generator", usage=usage)


def _score(step: str) -> float:
    return sum(step.encode()) % 101 / 100


def _counted(generator: CountingGenerator) -> FastAPI:
    app = generator_app(generator)

    @app.get("/v1/models/calls")
    async def calls() -> dict[str, int]:
        return dict(generator.calls)

    return app


async def _serve(generator_port: int, verifier_port: int, seconds: float) -> None:
    apps = {
        generator_port: _counted(CountingGenerator(seconds)),
        verifier_port: verifier_app(FakeVerifier(score_of=_score)),
    }
    servers = [uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning")) for port, app in apps.items()]
    await asyncio.gather(*(server.serve() for server in servers))


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))

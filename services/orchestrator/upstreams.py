"""The generators and verifiers that the settings name, as the two ports: clients over HTTP behind the routing."""

import asyncio

import httpx2
import openai
from prometheus_client import CollectorRegistry

from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.openai import OpenAIGenerator
from services.orchestrator.clients.transport import Upstream, upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.orchestrator.routing import ReplicatedGenerator, ReplicatedVerifier, RoutingMetrics
from services.orchestrator.settings import OrchestratorSettings


class Upstreams:
    """Both ports over every replica. `close` them when no one uses them any more."""

    def __init__(self, settings: OrchestratorSettings, registry: CollectorRegistry) -> None:
        self._generators = build_generators(settings)
        self._verifiers = [HttpVerifier(_upstream("verifier", url, settings)) for url in settings.verifier_url]
        routing = RoutingMetrics(registry)
        self.generator = ReplicatedGenerator(self._generators, routing)
        self.verifier = ReplicatedVerifier(self._verifiers, routing)

    async def close(self) -> None:
        """Stop the probing, then close the connections that it used."""
        await asyncio.gather(self.generator.close(), self.verifier.close())
        await asyncio.gather(*(client.close() for client in (*self._generators, *self._verifiers)))


def build_generators(settings: OrchestratorSettings) -> list[HttpGenerator] | list[OpenAIGenerator]:
    """Our generator services, or the OpenAI-compatible servers that the settings name instead."""
    if settings.openai_base_url is None:
        return [HttpGenerator(_upstream("generator", url, settings)) for url in settings.generator_url]
    return [_openai_generator(url, settings) for url in settings.openai_base_url]


def _openai_generator(url: str, settings: OrchestratorSettings) -> OpenAIGenerator:
    client = openai.AsyncOpenAI(
        base_url=url,
        api_key=settings.openai_api_key.get_secret_value(),
        timeout=httpx2.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s),
        max_retries=0,  # retries have one place, and it is not a client library
    )
    return OpenAIGenerator(
        client,
        settings.openai_model,
        settings.openai_style,
        settings.openai_system_prompt,
        settings.openai_max_concurrency,
    )


def _upstream(name: str, url: str, settings: OrchestratorSettings) -> Upstream:
    return upstream(
        name,
        url,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        api_key=settings.upstream_api_key,
    )

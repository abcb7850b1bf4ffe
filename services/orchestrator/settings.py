"""Settings of the orchestrator service, and of the admission that it shares with the all-in-one process."""

import json
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode

from services.core.steps import STEPWISE_SYSTEM_PROMPT
from services.orchestrator.turns import Bounds
from services.runtime.settings import settings_config

# Of all tenants. Without keys every address is one, and each that waits takes memory.
MOST_WAITING = 8192


def _http_addresses(given: Any) -> list[str]:
    """One address, several separated by commas, or a JSON array of them."""
    if isinstance(given, str):
        given = json.loads(given) if given.lstrip().startswith("[") else given.split(",")
    if not isinstance(given, list | tuple) or not given or not all(isinstance(url, str) for url in given):
        raise ValueError("write it as http://HOST:PORT, several with commas between them")
    urls = [_http_address(url.strip()) for url in given]
    if len(set(urls)) < len(urls):
        raise ValueError("an address stands twice")
    return urls


def _http_address(url: str) -> str:
    parts = urlsplit(url)
    # `port` raises ValueError beyond 65535, which pydantic reports.
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("write it as http://HOST:PORT, several with commas between them")
    return url


# NoDecode: the settings library would insist on JSON.
HttpAddresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_http_addresses)]


class OrchestratorSettings(BaseSettings):
    """Environment variables `E2H_ORCHESTRATOR_*`."""

    model_config = settings_config("E2H_ORCHESTRATOR_")

    port: int = Field(default=8100, ge=0, le=65535, description="The public port.")
    generator_url: HttpAddresses = Field(
        default=("http://127.0.0.1:8101",),
        description="Where our generator service listens; replicas, which serve the same model, separated by commas.",
    )
    verifier_url: HttpAddresses = Field(
        default=("http://127.0.0.1:8102",),
        description="Where our verifier service listens; replicas, which serve the same model, separated by commas.",
    )
    openai_base_url: HttpAddresses | None = Field(
        default=None,
        description="OpenAI-compatible servers (their /v1 URLs) that sample instead of our generator service.",
    )
    openai_model: str = Field(default="", description="The model to ask that server for.")
    openai_api_key: SecretStr = Field(default=SecretStr("none"), description="Its key; most own servers need none.")
    openai_style: Literal["chat", "easy-to-hard"] = Field(
        default="chat",
        description="chat: its chat completions with our system prompt; easy-to-hard: its text completions.",
    )
    openai_system_prompt: str = Field(
        default=STEPWISE_SYSTEM_PROMPT, description="Steps are what blank lines separate; the verifier scores each."
    )
    openai_max_concurrency: int = Field(
        default=64, ge=1, description="Samples asked of that server at once; more than it takes makes it refuse some."
    )
    upstream_api_key: SecretStr | None = Field(
        default=None,
        description="The API key that our generators and verifiers ask for; it needs the scopes generate and score.",
    )
    connect_timeout_s: float = Field(
        default=2.0, gt=0.0, description="A service that does not answer a connect is down."
    )
    read_timeout_s: float = Field(
        default=600.0,
        gt=0.0,
        description="Longest silence of one try; a long sample on a CPU takes minutes. A replica that hangs is noticed "
        "within seconds all the same where there is another one.",
    )

    @model_validator(mode="after")
    def _model_is_named(self) -> Self:
        if self.openai_base_url is not None and not self.openai_model:
            raise ValueError("E2H_ORCHESTRATOR_OPENAI_BASE_URL needs E2H_ORCHESTRATOR_OPENAI_MODEL")
        return self


class AdmissionSettings(BaseSettings):
    """Environment variables `E2H_ADMISSION_*`."""

    model_config = settings_config("E2H_ADMISSION_")

    max_tokens_in_flight: int = Field(
        default=2_097_152,
        ge=1,
        description="Most that solves under way may still make (samples times max_tokens); more of them wait here, "
        "where tenants take turns. About twice what the engines decode at once: with less they idle, with more their "
        "own queues, which know no tenants, decide who is served.",
    )
    tenant_share: float = Field(
        default=0.5,
        gt=0.0,
        le=1.0,
        description="Of these, the part that one tenant may take: the rest is free at once for whoever comes. A lone "
        "tenant has no more than this either.",
    )
    batch_share: float = Field(
        default=0.5,
        gt=0.0,
        le=1.0,
        description="Requests of class batch begin only while less than this part is in flight: the shorter the "
        "interactive ones then wait for the engines, and the less is ready for the engines when there are none.",
    )
    max_wait_s: float = Field(
        default=60.0,
        gt=0.0,
        description="Who would wait longer for a turn is refused at once, with the predicted wait.",
    )
    max_waiting: int = Field(
        default=512, ge=1, le=MOST_WAITING, description="Requests of one tenant that may wait; the next is refused."
    )

    @property
    def bounds(self) -> Bounds:
        """In tokens."""
        most = self.max_tokens_in_flight
        return Bounds(most, max(1, int(most * self.batch_share)), max(1, int(most * self.tenant_share)))

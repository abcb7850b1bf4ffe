"""Settings of the orchestrator service."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from services.core.steps import STEPWISE_SYSTEM_PROMPT
from services.runtime.settings import settings_config


class OrchestratorSettings(BaseSettings):
    """Environment variables `E2H_ORCHESTRATOR_*`."""

    model_config = settings_config("E2H_ORCHESTRATOR_")

    port: int = Field(default=8100, ge=0, le=65535, description="The public port.")
    generator_url: str = Field(default="http://127.0.0.1:8101", description="Where our generator service listens.")
    verifier_url: str = Field(default="http://127.0.0.1:8102", description="Where our verifier service listens.")
    openai_base_url: str | None = Field(
        default=None,
        description="An OpenAI-compatible server (its /v1 URL) that samples instead of our generator service.",
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
    connect_timeout_s: float = Field(
        default=2.0, gt=0.0, description="A service that does not answer a connect is down."
    )
    read_timeout_s: float = Field(
        default=600.0,
        gt=0.0,
        description="Longest silence of a service that works; a long sample on a CPU takes minutes.",
    )

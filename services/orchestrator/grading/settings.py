"""Settings of the grading pool."""

import os

from pydantic import Field
from pydantic_settings import BaseSettings

from services.runtime.settings import settings_config


class GradingSettings(BaseSettings):
    """Environment variables `E2H_GRADING_*`."""

    model_config = settings_config("E2H_GRADING_")

    workers: int = Field(
        default_factory=lambda: min(4, os.cpu_count() or 1),
        ge=1,
        le=64,
        description="Processes that compare answers, about 100 MB each; with one, a time-out makes the others wait.",
    )
    timeout_s: float = Field(
        default=1.5,
        gt=0.0,
        le=60.0,
        description="A comparison that takes longer is not equal and costs its process; callers wait for it.",
    )
    memory_mb: int = Field(
        default=512, ge=64, description="What a process may take beyond what it starts with; beyond that it dies."
    )
    max_waiting: int = Field(
        default=16_384, ge=1024, description="Comparisons that wait or run; a request beyond them gets 429."
    )
    cached: int = Field(
        default=65_536, ge=0, description="Results remembered, each up to about a kilobyte; 0 remembers nothing."
    )

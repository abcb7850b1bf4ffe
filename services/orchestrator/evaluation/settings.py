"""Settings of evaluations."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from services.runtime.settings import settings_config


class EvaluationSettings(BaseSettings):
    """Environment variables `E2H_EVAL_*`."""

    model_config = settings_config("E2H_EVAL_")

    data_dir: Path | None = Field(
        default=None,
        description="A directory with copies of built-in data sets (math500.jsonl, gsm8k.jsonl, or .parquet): what is "
        "there is not asked of the hub.",
    )

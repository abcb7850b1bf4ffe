"""Settings of evaluation jobs: the same for the orchestrator, which takes them, and for workers, which run them."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from services.runtime.redis import RedisUrl
from services.runtime.settings import settings_config


class JobSettings(BaseSettings):
    """Environment variables `E2H_JOBS_*`."""

    model_config = settings_config("E2H_JOBS_")

    redis_url: RedisUrl | None = Field(
        default=None,
        description="Where the state of jobs is (redis 7.2 or later, or valkey); without it /v1/jobs answers 503. Keep "
        "its append-only file on, or a restart of redis loses the jobs.",
    )
    results_url: str | None = Field(
        default=None,
        description="Where samples go: a directory, or a URL that fsspec knows (s3, gs), the same for all processes.",
    )
    data_dir: Path | None = Field(
        default=None, description="Data sets given by `path` are read below it; without it none are."
    )
    hub_datasets: bool = Field(
        default=False, description="Let a job name any data set of the Hugging Face hub, which is then downloaded."
    )
    max_items: int = Field(
        default=100_000, ge=1, description="Items of one job; each takes about 200 bytes of redis while it is kept."
    )
    keep_days: float = Field(default=30.0, gt=0.0, description="State of an ended job is forgotten after so long.")
    redis_timeout_s: float = Field(default=3.0, gt=0.0, le=60.0, description="A redis that takes longer is down.")
    fsync_wait_s: float = Field(
        default=5.0, gt=0.0, le=60.0, description="A job that is not on redis' disk by then is refused."
    )
    worker_port: int = Field(default=8103, ge=0, le=65535, description="Where a worker serves /ready and /metrics.")
    concurrency: int = Field(
        default=4, ge=1, le=256, description="Items that a worker runs at once; engines batch across them."
    )
    lease_s: float = Field(
        default=12.0,
        gt=0.0,
        description="An item whose worker was silent for so long is given to another, within 15 s of its death.",
    )
    sweep_s: float = Field(default=1.0, gt=0.0, description="How often a worker looks for items to give out.")
    deliveries: int = Field(
        default=3, ge=1, description="An item that ended as many workers, or failed as often, is given up."
    )
    retries: int = Field(
        default=1000, ge=0, description="An item is put off so often for an engine that is busy or away; then given up."
    )
    backoff_s: float = Field(
        default=30.0,
        gt=0.0,
        description="Longest pause of an item that was put off. The first is what its engine asks, then twice as long.",
    )
    item_timeout_s: float = Field(
        default=1800.0, gt=0.0, le=3600.0, description="Time of one item, which its engines are told; then it failed."
    )
    stop_s: float = Field(
        default=20.0, ge=0.0, description="On SIGTERM, items that run have so long to end; then they are given back."
    )
    window: int = Field(
        default=256, ge=1, description="Items of one job in the queue at once, so that jobs take turns."
    )

    @model_validator(mode="after")
    def _results_have_a_place(self) -> Self:
        if self.redis_url is not None and self.results_url is None:
            raise ValueError("E2H_JOBS_REDIS_URL needs E2H_JOBS_RESULTS_URL")
        return self

    @property
    def heartbeat_s(self) -> float:
        """How often a worker renews its leases: two may be lost."""
        return self.lease_s / 3

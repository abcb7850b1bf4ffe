"""Settings of the generator service."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from services.core.steps import STEPWISE_SYSTEM_PROMPT
from services.runtime.settings import settings_config


class GeneratorSettings(BaseSettings):
    """Environment variables `E2H_GENERATOR_*`."""

    model_config = settings_config("E2H_GENERATOR_")

    port: int = Field(default=8101, ge=0, le=65535, description="Port of the generator's own process.")
    model: str = Field(
        default="models/generator", description="Directory or hub id of a causal language model with safetensors."
    )
    revision: str | None = Field(default=None, description="Commit of a hub model; pin it, or its weights may change.")
    prompt_style: Literal["auto", "chat", "easy-to-hard"] = Field(
        default="auto", description="auto: the model's chat template when it has one, else the easy-to-hard format."
    )
    system_prompt: str = Field(
        default=STEPWISE_SYSTEM_PROMPT, description="First turn of the chat style. Steps are what blank lines separate."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto: float32 without a GPU (3x faster than bfloat16 there), the model's own with one.",
    )
    context_length: int | None = Field(
        default=None, ge=16, description="Tokens of prompt and sample together; lower it to fit more samples in memory."
    )
    max_running_samples: int = Field(
        default=256, ge=1, le=8192, description="Samples that the engine decodes at once; more wait in its queue."
    )
    max_queue_tokens: int = Field(
        default=16_777_216,
        ge=1,
        description="What all admitted requests may make at most (n x max_tokens each); beyond it callers get 429 at "
        "once. 16 Mi are 128 requests of 128 samples of 1,024 tokens.",
    )
    gpu_memory_share: float = Field(
        default=0.9, gt=0.0, le=1.0, description="Share of the GPU's memory that vLLM takes; lower it to share the GPU."
    )
    cpu_kv_cache_gib: int = Field(
        default=1,
        ge=1,
        description="Without a GPU: memory for keys and values. The demo model needs a small part of 1.",
    )
    compile: bool = Field(
        default=False, description="torch.compile and CUDA graphs: minutes at the first start, faster tokens after."
    )
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that share one copy of the model.")

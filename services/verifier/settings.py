"""Settings of the verifier service."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from services.core.contracts import VerifierKind
from services.runtime.redis import RedisUrl
from services.runtime.settings import settings_config

# More tokens a forward pass gain nothing on a CPU; a GPU wants its matrices large.
_BATCH_TOKENS = {"cpu": 4096, "cuda": 16_384}


class VerifierSettings(BaseSettings):
    """Environment variables `E2H_VERIFIER_*`."""

    model_config = settings_config("E2H_VERIFIER_")

    port: int = Field(default=8102, ge=0, le=65535, description="Port of the verifier's own process.")
    model: str = Field(default="models/verifier", description="Directory of a reward model with safetensors.")
    family: str | None = Field(
        default=None,
        description="Prompt format and read-out of the model, overriding what its files say; needed for a causal LM "
        "whose config names no family. An unknown name is answered with the list.",
    )
    kind: VerifierKind | None = Field(
        default=None, description="What the model was trained as; needed only where its config does not say."
    )
    eos_readout: Literal["at", "before"] | None = Field(
        default=None, description="Position of the outcome score; needed only where the model's config does not say."
    )
    separator: str | None = Field(
        default=None, description="Text between steps of family token-classification; a newline where nothing says."
    )
    prompt: Literal["chat", "easy-to-hard"] | None = Field(
        default=None,
        description="Format of family sequence-classification; chat where the tokenizer has a template and nothing "
        "says otherwise.",
    )
    device: str = Field(default="auto", description="auto: cuda when there is one, else cpu.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: float32 on a CPU, bfloat16 on a GPU."
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of the forward pass; lower it to leave cores to the generator."
    )
    max_batch_tokens: int | None = Field(
        default=None,
        ge=64,
        description="Tokens that one forward pass computes; bounds its memory and its latency. Default: 4096 on a CPU, "
        "16384 on a GPU.",
    )
    compile: bool = Field(
        default=False,
        description="Fuse what stands between the matrix products. A start takes up to a minute more and a C++ "
        "compiler; passes in bfloat16 are a few per cent shorter, those in float32 on a CPU are not.",
    )
    prefix_cache_mib: int = Field(
        default=1024, ge=0, description="Memory for keys and values of prefixes that may come again; 0 keeps none."
    )
    max_queue_tokens: int = Field(
        default=2_000_000, ge=1024, description="Tokens that may wait; beyond it callers get 429 at once."
    )
    max_queue_wait_s: float | None = Field(
        default=None,
        gt=0.0,
        description="An interactive request that would wait longer, by how fast the device has been of late, gets 429 "
        "at once, and those that are let in are answered within about twice this time at any load. Set it to a little "
        "less than half of what callers wait for. Without it they wait as long as max_queue_tokens take, which suits a "
        "slow device with few callers.",
    )
    gather_ms: float = Field(
        default=2.0, ge=0.0, le=1000.0, description="How long an idle device waits for a first caller's siblings."
    )
    cache_url: RedisUrl | None = Field(
        default=None,
        description="A redis that keeps scores, redis://HOST:PORT/DB. Whoever can write to it can forge scores; at "
        "start the whole checkpoint is read once more, for its digest.",
    )
    cache_ttl_s: int = Field(
        default=7 * 86_400, ge=1, description="Lifetime of a kept score; with the load, it bounds what redis holds."
    )
    cache_timeout_ms: float = Field(
        default=100.0, gt=0.0, le=10_000.0, description="A cache that takes longer is done without, for a second."
    )

    def batch_tokens(self, device_type: str) -> int:
        """`max_batch_tokens`, or what suits a device of this type (cpu or cuda)."""
        return self.max_batch_tokens or _BATCH_TOKENS[device_type]

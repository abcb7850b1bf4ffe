"""Settings from the environment, one class a service. The environment is read when a class is instantiated; the
name of the secrets directory when its module is imported.

Every variable begins with `E2H_`; a file named after the variable under the secrets directory (`E2H_SECRETS_DIR`)
does as well.
"""

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from services.runtime.keys import Rate
from services.runtime.redis import RedisUrl

PREFIX = "E2H_"
_SECRETS_VARIABLE = "E2H_SECRETS_DIR"


def settings_config(prefix: str) -> SettingsConfigDict:
    """The configuration of a settings class whose variables begin with `prefix`."""
    secrets = os.environ.get(_SECRETS_VARIABLE)
    return SettingsConfigDict(
        env_prefix=prefix,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # an address that is wrong may hold a password
        secrets_dir=secrets if secrets and Path(secrets).is_dir() else None,
        # `model` is our word for a model; pydantic would warn about its own `model_` names.
        protected_namespaces=(),
    )


class RuntimeSettings(BaseSettings):
    """What holds for any service in this process."""

    model_config = settings_config(PREFIX)

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; beyond loopback only with API keys or `insecure`."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of `e2h keys`. With it every request but probes and docs needs a key; changes hold at once.",
    )
    auth_failure_rate: Rate = Field(
        default="60/minute",
        description="Requests of one address without a valid key that are told so (401); beyond it they get 429. A "
        "valid key is never held up by others'.",
    )
    insecure: bool = Field(
        default=False,
        description="Listen beyond loopback without keys: whoever reaches the port may use it.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses, separated by commas, whose X-Forwarded-For is believed; anyone else's is ignored.",
    )
    rate_limit: Rate | None = Field(
        default=None,
        description="Requests of one tenant, or of one address where no keys are asked for, as 600/minute; beyond it "
        "429. A key's own rate goes before it.",
    )
    redis_url: RedisUrl | None = Field(
        default=None,
        description="A redis in which all processes count rates together and know each other's answers to an "
        "Idempotency-Key; without it each is alone.",
    )
    redis_timeout_ms: float = Field(
        default=100.0,
        gt=0.0,
        le=10_000.0,
        description="A redis that takes longer is done without until it answers again.",
    )
    idempotency_ttl_s: float = Field(
        default=86_400.0, gt=0.0, le=2_592_000.0, description="How long an answer to an Idempotency-Key is sent again."
    )
    idempotency_max_bytes: int = Field(
        default=64 * 2**20,
        ge=4096,
        description="Memory for such answers; beyond it the oldest are forgotten. One above an eighth is not kept.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Below INFO the log may hold lengths and hashes of texts, never the texts."
    )
    log_format: Literal["json", "console"] = Field(default="json", description="console is for a person at a terminal.")
    max_body_bytes: int = Field(
        default=8 * 2**20, ge=1024, description="Larger request bodies get 413; 1,024 solutions of 2k tokens fit 8 MiB."
    )
    body_timeout_s: float = Field(
        default=10.0, gt=0.0, description="Headers, and then the body, have this long to arrive; then 408."
    )
    drain_grace_s: float = Field(
        default=2.0,
        ge=0.0,
        description="After SIGTERM, /ready says no and the port still takes requests for this long, until whoever "
        "balances the load has noticed. SIGINT, from a person at a terminal, does not wait.",
    )
    drain_timeout_s: float = Field(
        default=30.0, ge=0.0, description="After that, requests that still run get this long; then they are cut."
    )


Settings = TypeVar("Settings", bound=BaseSettings)


def load_settings(settings: type[Settings], **overrides: Any) -> Settings:
    """The settings of this process. Ends it with code 2 and one clear line when a variable is wrong."""
    try:
        return settings(**overrides)
    except (ValidationError, SettingsError) as error:
        prefix = settings.model_config["env_prefix"]
        print(f"error: {_describe(error, prefix)}\n  mend: set it right, or unset it", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


def _describe(error: ValidationError | SettingsError, prefix: str) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = "_".join(str(part) for part in first["loc"])
    return f"{prefix}{name}".upper() + f": {first['msg']}" if name else first["msg"]


def unknown_variables(known: list[type[BaseSettings]], environ: Mapping[str, str]) -> dict[str, str | None]:
    """`E2H_` variables that no settings class reads, each with the nearest name that one does (a likely typo)."""
    names = {f"{cls.model_config['env_prefix']}{field}".upper() for cls in known for field in cls.model_fields}
    names.add(_SECRETS_VARIABLE)
    strange = [v for v in environ if v.upper().startswith(PREFIX) and v.upper() not in names]
    return {v: next(iter(difflib.get_close_matches(v.upper(), names, n=1)), None) for v in sorted(strange)}

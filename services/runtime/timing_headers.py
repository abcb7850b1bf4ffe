"""Where a score request's time went, as response headers: written by the verifier, read by its clients."""

import math
from collections.abc import Mapping

from services.core.contracts import ScoreTimings


def timing_headers(timings: ScoreTimings) -> dict[str, str]:
    """`x-tokenize-ms`, `x-queue-ms`, `x-inference-ms`, `x-batch-tokens`, `x-batch-solutions`."""
    return {_header(name): f"{value:.3f}".rstrip("0").rstrip(".") for name, value in timings.model_dump().items()}


def parse_timings(headers: Mapping[str, str]) -> ScoreTimings:
    """The inverse; a header that is missing or no number reads as 0, since timings inform and decide nothing."""
    values = {name: _number(headers.get(_header(name), "")) for name in ScoreTimings.model_fields}
    whole = {name: int(values[name]) for name in ("batch_tokens", "batch_solutions")}
    return ScoreTimings.model_validate({**values, **whole})


def _header(name: str) -> str:
    return f"x-{name.replace('_', '-')}"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0

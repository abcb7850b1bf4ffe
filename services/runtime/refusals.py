"""From the error envelope back to the exception that the other side raised: `faults.py` read in the mirror."""

from collections.abc import Mapping

from pydantic import ValidationError

from services.core.contracts import ErrorBody, ErrorEnvelope
from services.core.errors import E2HError, error_from_wire

_LONGEST_WAIT_S = 3600.0  # a number of hundreds of digits is infinite as a float


def refusal(status: int, body: ErrorBody, retry_after_s: float = 1.0) -> E2HError:
    """The exception that `body` tells."""
    return error_from_wire(status, body.code, body.message, body.param, retry_after_s)


def read_refusal(status: int, content: bytes, headers: Mapping[str, str]) -> E2HError | None:
    """The exception that an error response tells; None when its body is not our envelope.

    `headers` finds names in any case, as an HTTP library's do. A `Retry-After` that is no whole number of seconds
    reads as one second.
    """
    try:
        body = ErrorEnvelope.model_validate_json(content).error
    except ValidationError:
        return None
    wait = headers.get("retry-after", "")
    return refusal(status, body, min(float(wait), _LONGEST_WAIT_S) if wait.isdecimal() else 1.0)

"""From an exception to the error envelope of the HTTP contract. The only place where faults become responses.

Nothing of the caller's input, no path and no stack reaches a response: messages of pydantic errors are kept only
because they speak of the schema, and field names are cut to a printable length.
"""

import math
import random
from collections.abc import Sequence

import structlog
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import Response

from services.core.contracts import ErrorBody, ErrorEnvelope
from services.core.errors import E2HError, EmptyProblem, InvalidJson, InvalidRequest, RateLimited, TooManyItems
from services.runtime.context import request_id

_log = structlog.get_logger("e2h.faults")

_MAX_REPORTED = 20
_MAX_DESCRIBED = 1000  # describing each takes time and memory, even those that are not reported
_MAX_NAME = 64
_MAX_RETRY_AFTER_S = 30
_MAX_RATE_WAIT_S = 3600
# What is left of the request is not read.
_CLOSES_CONNECTION = (408, 413, 431)

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
# pydantic error types that are wire codes of ours, or stand for one.
_CODES = {
    "empty_problem": EmptyProblem.code,
    "identical_samples": "identical_samples",
    "unsupported_parameter": "unsupported_parameter",
    "unsupported_content": "unsupported_content",
    "empty": "empty",
    "too_short": "empty",
    "finite_number": "not_finite",
    "too_long": TooManyItems.code,
    "string_unicode": "invalid_unicode",
}


def envelope(error: E2HError) -> ErrorEnvelope:
    """The wire form of `error`, under the current request's id."""
    body = ErrorBody(
        type=_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error"),
        code=error.code,
        message=error.message,
        param=error.param,
        request_id=request_id(),
        retryable=error.retryable,
    )
    return ErrorEnvelope(error=body)


def log_cause(error: E2HError) -> None:
    """Say in the log what stands behind a fault of ours: kinds only, as messages of causes may hold callers' texts."""
    cause = error.__cause__
    _log.warning("fault", code=error.code, cause=None if cause is None else type(cause).__name__)


def error_response(error: E2HError, status: int | None = None) -> Response:
    """The envelope of `error`, with `Retry-After` where a retry is the advice; under `status` where a foreign schema
    has another one for it."""
    headers = {}
    if error.status in (429, 503):
        headers = {"retry-after": str(_retry_after(error)), "x-should-retry": "true"}
    if error.status == 401:
        headers = {"www-authenticate": 'Bearer realm="e2h"'}
    if error.status in _CLOSES_CONNECTION:
        headers = {"connection": "close"}
    content = envelope(error).model_dump_json()
    return Response(content, status_code=status or error.status, media_type="application/json", headers=headers)


def _retry_after(error: E2HError) -> int:
    """Whole seconds until it is worth trying again, spread by a fifth so that refused callers do not return at once."""
    # A wait by the clock is never told shorter than it is; a predicted one may be.
    known = isinstance(error, RateLimited)
    spread = error.retry_after_s * random.uniform(1.0 if known else 0.8, 1.2)  # noqa: S311 - jitter, not a secret
    return min(_MAX_RATE_WAIT_S if known else _MAX_RETRY_AFTER_S, max(1, math.ceil(spread)))


def invalid_request(error: ValidationError, unknown_field: str = InvalidRequest.code) -> InvalidRequest:
    """The one error that stands for everything pydantic found; code and param are those of the first.

    `unknown_field` is the code of a field that the contract does not have.
    """
    if error.error_count() > _MAX_DESCRIBED:
        return InvalidRequest(f"more than {_MAX_DESCRIBED} faults")
    found = error.errors(include_url=False, include_context=False)
    first = found[0]
    if first["type"] == "json_invalid":
        return InvalidJson(first["msg"])
    text = "; ".join(_describe(e) for e in found[:_MAX_REPORTED])
    code = unknown_field if first["type"] == "extra_forbidden" else _code(first)
    return InvalidRequest(text, param=_param(first["loc"]) or None, code=code)


def _describe(error: ErrorDetails) -> str:
    where = _param(error["loc"])
    what = "number must be finite" if _code(error) == "not_finite" else error["msg"]
    return f"{where}: {what}" if where else what


def _code(error: ErrorDetails) -> str:
    value = error["input"]
    if isinstance(value, float) and not math.isfinite(value):
        return "not_finite"
    return _CODES.get(error["type"], InvalidRequest.code)


def _param(loc: Sequence[int | str]) -> str:
    return ".".join(_printable(str(part)) for part in loc)


def _printable(name: str) -> str:
    kept = "".join(c if c.isprintable() and c.isascii() else "?" for c in name[:_MAX_NAME])
    return kept + ("…" if len(name) > _MAX_NAME else "")

"""The error tree of the whole system, drawn below. Pure: knows status codes, no web framework.

    E2HError                          status  code                       retryable
    ├── InvalidRequest                  422   invalid_body (or its own)  no
    │   ├── InvalidJson                 400   invalid_json               no
    │   ├── InvalidHttp                 400   invalid_http               no
    │   ├── InvalidEventId              400   invalid_event_id           no
    │   ├── EmptyProblem                422   empty_problem              no
    │   ├── TooManyItems                422   too_many_items             no
    │   ├── ContextLengthExceeded       422   context_length_exceeded    no
    │   ├── UnsupportedMediaType        415   unsupported_media_type     no
    │   ├── RequestTooSlow              408   request_too_slow           no
    │   ├── BodyTooLarge                413   body_too_large             no
    │   ├── HeadersTooLarge             431   headers_too_large          no
    │   └── ItemTooLarge                413   item_too_large_for_device  no
    ├── Unauthorized                    401   unauthorized               no
    ├── Forbidden                       403   forbidden                  no
    ├── ModelNotFound                   404   model_not_found            no
    ├── NotFound                        404   not_found                  no
    ├── MethodNotAllowed                405   method_not_allowed         no
    ├── IdempotencyMismatch             422   idempotency_mismatch       no
    ├── NotFinished                     409   not_finished               no
    ├── Overloaded                      429   overloaded                 yes
    ├── RateLimited                     429   rate_limited               yes
    ├── NotReady                        503   not_ready                  yes
    ├── Draining                        503   draining                   yes
    ├── StorageFull                     503   storage_full               yes
    ├── UpstreamUnavailable             503   upstream_unavailable       yes
    ├── UpstreamContract                502   upstream_contract          no
    ├── DeadlineExceeded                504   deadline_exceeded          yes
    └── InternalError                   500   internal                   no
    ModelLoadError                    (process exit code 3, never travels over HTTP)

Each class carries its HTTP status, its wire code and whether a retry can help. `error_from_wire` rebuilds the same
class on the caller's side, so that overload is the same exception in one process and across three.
"""

from typing import ClassVar


class E2HError(Exception):
    """A fault that a caller may see. `message` never quotes the caller's input, a path or a stack."""

    status: ClassVar[int] = 500
    code: str = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s  # the predicted wait; only 429 and 503 tell it
        if code is not None:
            self.code = code


class InvalidRequest(E2HError):
    """The request cannot be served as it is; the same request will fail again."""

    status = 422
    code = "invalid_body"


class InvalidJson(InvalidRequest):
    """The body is not a JSON document."""

    status = 400
    code = "invalid_json"


class InvalidHttp(InvalidRequest):
    """What arrived is not an HTTP request."""

    status = 400
    code = "invalid_http"


class InvalidEventId(InvalidRequest):
    """The event after which a stream shall go on has no name that the stream gives."""

    status = 400
    code = "invalid_event_id"


class EmptyProblem(InvalidRequest):
    """The problem is blank."""

    code = "empty_problem"


class TooManyItems(InvalidRequest):
    """More solutions, steps or candidates than one request may carry."""

    code = "too_many_items"


class ContextLengthExceeded(InvalidRequest):
    """A text does not fit the model's context; the message states counted tokens and the limit."""

    code = "context_length_exceeded"


class UnsupportedMediaType(InvalidRequest):
    """The body is not declared as JSON, or is compressed."""

    status = 415
    code = "unsupported_media_type"


class RequestTooSlow(InvalidRequest):
    """Headers or body did not arrive within the configured time."""

    status = 408
    code = "request_too_slow"


class BodyTooLarge(InvalidRequest):
    """The body exceeds the configured number of bytes."""

    status = 413
    code = "body_too_large"


class HeadersTooLarge(InvalidRequest):
    """Request line and headers exceed what the server reads."""

    status = 431
    code = "headers_too_large"


class ItemTooLarge(InvalidRequest):
    """One solution alone exceeds the memory of the verifier's device."""

    status = 413
    code = "item_too_large_for_device"


class Unauthorized(E2HError):
    """No API key, or none that is valid here."""

    status = 401
    code = "unauthorized"


class Forbidden(E2HError):
    """The API key is valid and lacks the scope that the route asks for."""

    status = 403
    code = "forbidden"


class ModelNotFound(E2HError):
    """The named model is not served here."""

    status = 404
    code = "model_not_found"


class NotFound(E2HError):
    """No such route."""

    status = 404
    code = "not_found"


class MethodNotAllowed(E2HError):
    """The route exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class IdempotencyMismatch(E2HError):
    """The `Idempotency-Key` came before, with another body."""

    status = 422
    code = "idempotency_mismatch"


class NotFinished(E2HError):
    """The job has no results: it still runs, or ended without any."""

    status = 409
    code = "not_finished"


class Overloaded(E2HError):
    """Our own queue is full; the work was refused before it began."""

    status = 429
    code = "overloaded"
    retryable = True


class RateLimited(E2HError):
    """The caller has used up its rate; the wait is known."""

    status = 429
    code = "rate_limited"
    retryable = True


class NotReady(E2HError):
    """The service is loading, or broken."""

    status = 503
    code = "not_ready"
    retryable = True


class Draining(E2HError):
    """The service is stopping and takes no new work."""

    status = 503
    code = "draining"
    retryable = True


class StorageFull(E2HError):
    """What keeps jobs or their results has no room; nothing was kept in part."""

    status = 503
    code = "storage_full"
    retryable = True


class UpstreamUnavailable(E2HError):
    """A service that this one depends on cannot be reached or failed."""

    status = 503
    code = "upstream_unavailable"
    retryable = True


class UpstreamContract(E2HError):
    """A service that this one depends on answered something that breaks the contract."""

    status = 502
    code = "upstream_contract"


class DeadlineExceeded(E2HError):
    """The caller's time budget ran out."""

    status = 504
    code = "deadline_exceeded"
    retryable = True


class InternalError(E2HError):
    """A bug of ours. The message says nothing; the log has the stack."""


class ModelLoadError(Exception):
    """A model directory cannot be served. Ends the process with `exit_code`; `hint` says what mends it."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"


# Leaves only: `InvalidRequest` answers for every 4xx code that has no class of its own.
_BY_CODE: dict[str, type[E2HError]] = {
    cls.code: cls
    for cls in (
        InvalidJson,
        InvalidHttp,
        InvalidEventId,
        EmptyProblem,
        TooManyItems,
        ContextLengthExceeded,
        UnsupportedMediaType,
        RequestTooSlow,
        BodyTooLarge,
        HeadersTooLarge,
        ItemTooLarge,
        Unauthorized,
        Forbidden,
        ModelNotFound,
        NotFound,
        MethodNotAllowed,
        IdempotencyMismatch,
        NotFinished,
        Overloaded,
        RateLimited,
        NotReady,
        Draining,
        StorageFull,
        UpstreamUnavailable,
        UpstreamContract,
        DeadlineExceeded,
    )
}


def error_from_wire(
    status: int, code: str, message: str, param: str | None = None, retry_after_s: float = 1.0
) -> E2HError:
    """The exception that the other side raised, from its error envelope.

    An unknown 4xx becomes `InvalidRequest` with the code kept; anything else unknown is a failure of the upstream.
    """
    cls = _BY_CODE.get(code)
    if cls is not None:
        return cls(message, param=param, retry_after_s=retry_after_s)
    if 400 <= status < 500:
        return InvalidRequest(message, param=param, code=code)
    return UpstreamUnavailable(f"the upstream service failed with status {status}")

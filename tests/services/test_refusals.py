"""Error envelopes written and read again: the same exception on the caller's side."""

import httpx2
import pytest

from services.core.errors import (
    ContextLengthExceeded,
    E2HError,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    UpstreamUnavailable,
)
from services.runtime.faults import error_response
from services.runtime.refusals import read_refusal


def told(error: E2HError) -> E2HError | None:
    response = error_response(error)
    return read_refusal(response.status_code, bytes(response.body), response.headers)


@pytest.mark.parametrize(
    "error",
    [
        ContextLengthExceeded("has 900 tokens", param="problem"),
        InvalidRequest("no", code="not_finite"),
        NotFound("no such route"),
    ],
    ids=lambda error: error.code,
)
def test_a_refusal_is_read_as_it_was_raised(error: E2HError) -> None:
    read = told(error)
    assert type(read) is type(error)
    assert read is not None
    assert (read.code, read.message, read.param) == (error.code, error.message, error.param)


def test_a_bug_of_the_other_side_is_an_unavailable_service() -> None:
    assert isinstance(told(InternalError("secret")), UpstreamUnavailable)


def test_the_predicted_wait_is_kept_within_its_jitter() -> None:
    read = told(Overloaded("full", retry_after_s=10.0))
    assert read is not None
    assert 8.0 <= read.retry_after_s <= 12.0


@pytest.mark.parametrize("wait", ["soon", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
def test_a_wait_that_is_no_whole_number_of_seconds_is_one_second(wait: str) -> None:
    body = bytes(error_response(Overloaded("full")).body)
    read = read_refusal(429, body, httpx2.Headers({"Retry-After": wait}))
    assert read is not None
    assert read.retry_after_s == 1.0


def test_a_wait_without_end_has_one() -> None:
    body = bytes(error_response(Overloaded("full")).body)
    read = read_refusal(429, body, httpx2.Headers({"Retry-After": "9" * 500}))
    assert read is not None
    assert error_response(read).headers["retry-after"].isdecimal()


@pytest.mark.parametrize("content", [b"", b"<html>", b"{}", b'{"error": "no"}', b'{"detail": []}', b"\xff"])
def test_what_is_no_envelope_of_ours_tells_nothing(content: bytes) -> None:
    assert read_refusal(502, content, {}) is None

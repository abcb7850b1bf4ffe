"""The error tree: what each class tells, and the same class on both sides of a wire."""

import pytest

from services.core import errors
from services.core.errors import (
    E2HError,
    InternalError,
    InvalidRequest,
    ModelLoadError,
    UpstreamUnavailable,
    error_from_wire,
)


def _tree(root: type[E2HError]) -> list[type[E2HError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


TRAVELLING = [cls for cls in _tree(E2HError) if cls not in (E2HError, InternalError)]


@pytest.mark.parametrize("cls", TRAVELLING, ids=lambda cls: cls.__name__)
def test_an_error_is_the_same_class_on_the_other_side(cls: type[E2HError]) -> None:
    sent = cls("what happened", param="n", retry_after_s=7.0)
    received = error_from_wire(sent.status, sent.code, sent.message, sent.param, sent.retry_after_s)
    assert type(received) is cls
    told = (received.status, received.code, received.message, received.param, received.retryable)
    assert told == (sent.status, sent.code, sent.message, sent.param, sent.retryable)
    assert received.retry_after_s == 7.0 or not received.retryable


@pytest.mark.parametrize(
    ("status", "code", "cls", "kept"),
    [
        pytest.param(422, "not_finite", InvalidRequest, "not_finite", id="a 4xx code without a class is kept"),
        pytest.param(418, "teapot", InvalidRequest, "teapot", id="an unknown 4xx is the request's fault"),
        pytest.param(
            500, "internal", UpstreamUnavailable, "upstream_unavailable", id="a bug over there is no bug here"
        ),
        pytest.param(599, "strange", UpstreamUnavailable, "upstream_unavailable", id="any other 5xx is the upstream's"),
    ],
)
def test_an_unknown_error_is_understood_by_its_status(status: int, code: str, cls: type[E2HError], kept: str) -> None:
    received = error_from_wire(status, code, "what happened")
    assert type(received) is cls
    assert received.code == kept


@pytest.mark.parametrize("cls", [*TRAVELLING, InternalError], ids=lambda cls: cls.__name__)
def test_the_drawing_of_the_tree_is_true(cls: type[E2HError]) -> None:
    (line,) = [line for line in (errors.__doc__ or "").splitlines() if f" {cls.__name__} " in line]
    assert f" {cls.status} " in line
    assert f" {cls.code} " in line
    assert line.endswith("yes" if cls.retryable else "no")


def test_codes_are_not_shared() -> None:
    codes = [cls.code for cls in TRAVELLING]
    assert len(set(codes)) == len(codes)


def test_only_faults_that_pass_are_retryable() -> None:
    assert {cls.status for cls in TRAVELLING if cls.retryable} == {429, 503, 504}


def test_a_code_of_its_own_stays_with_one_error() -> None:
    special = InvalidRequest("blank step", code="empty_step")
    assert special.code == "empty_step"
    assert InvalidRequest("other").code == "invalid_body"


def test_a_model_load_error_says_what_mends_it() -> None:
    error = ModelLoadError("no weights", "save them")
    assert str(error) == "no weights (save them)"
    assert error.exit_code == 3

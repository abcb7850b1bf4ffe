"""Schemathesis over the served OpenAPI of each app, with fake engines, on real sockets: no 5xx, responses conform."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from services.core.contracts import ErrorEnvelope, SolveSampling
from tests.fakes import FakeGenerator, FakeVerifier, solution
from tests.serving import all_in_one_app, generator_app, orchestrator_app, served, verifier_app

EXAMPLES = 30
# Rules between fields or requests, which the page's schemas do not tell; each has its own row in another test. With
# `invalid_body`, the fields of such rules; None is a rule of the whole body.
BEYOND_THE_SCHEMA = {
    "identical_samples",  # n > 1 at temperature 0
    "too_many_items",  # beam_width x expand of a search
    "unsupported_parameter",  # an early stop of best_of_n; n of a search; options of a stream without one, and its key
    "unsupported_content",  # the last message is not the user's
    "empty_problem",  # or blank
    "idempotency_mismatch",
}
FIELDS = {
    None,
    "n",
    "max_completion_tokens",
    "e2h.strategy",
    *(f"e2h.sampling.{name}" for name in SolveSampling.model_fields),
}


def _apps() -> dict[str, Callable[[], FastAPI]]:
    def generator() -> FakeGenerator:
        return FakeGenerator([solution("42"), solution("41"), "no answer"])

    return {
        "all-in-one": lambda: all_in_one_app(generator(), FakeVerifier()),
        "orchestrator": lambda: orchestrator_app(generator(), FakeVerifier()),
        "generator": lambda: generator_app(generator()),
        "verifier": lambda: verifier_app(FakeVerifier()),
    }


APPS = {name: make() for name, make in _apps().items()}
SCHEMAS = {name: schemathesis.openapi.from_dict(app.openapi()) for name, app in APPS.items()}
FOUND: list[tuple[str, Any]] = [(name, found) for name, one in SCHEMAS.items() for found in one.get_all_operations()]
VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OPERATIONS = [
    pytest.param(name, found.ok(), mode, id=f"{mode.value} {found.ok().label} of {name}")
    for name, found in FOUND
    # A route without a body takes nothing that could be wrong.
    for mode in ([VALID, INVALID] if found.ok().body else [VALID])
]
load_all_checks()


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """Where each app listens, in a thread of its own."""
    ready, ending, found = threading.Event(), threading.Event(), {}

    async def serve(name: str, app: FastAPI, stop: asyncio.Event) -> None:
        async with served(app) as address:
            found[name] = address.url
            if len(found) == len(APPS):
                ready.set()
            await stop.wait()

    async def serve_all() -> None:
        stop = asyncio.Event()
        serving = [asyncio.create_task(serve(name, app, stop)) for name, app in APPS.items()]
        await asyncio.to_thread(ending.wait)
        stop.set()
        await asyncio.gather(*serving)

    thread = threading.Thread(target=lambda: asyncio.run(serve_all()))
    thread.start()
    assert ready.wait(60)
    yield found
    ending.set()
    thread.join()


def _whole(value: Any) -> Any:
    """4.0 as 4: an integer to JSON Schema, and on purpose none to our routes."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {name: _whole(item) for name, item in value.items()} if isinstance(value, dict) else value


def conforms(case: Any, response: Any, mode: GenerationMode) -> None:
    """All checks of the library; what it would call a valid request that was refused may be a rule between fields."""
    # A body can be too large to be read at all, which the library does not count as a refusal of what is in it.
    unread = [negative_data_rejection] if response.status_code == 413 else []
    case.validate_response(response, excluded_checks=[positive_data_acceptance, *unread])
    assert response.status_code < 500
    if response.status_code < 400:
        return
    error = ErrorEnvelope.model_validate_json(response.content).error
    assert error.request_id == response.headers["x-request-id"][0]
    if mode is VALID and response.status_code in (400, 422):
        beyond = error.code in BEYOND_THE_SCHEMA or (error.code == "invalid_body" and error.param in FIELDS)
        assert beyond, error


# The apps run in threads of this process and draw jitter, which hypothesis takes for draws of a strategy.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize(("name", "operation", "mode"), OPERATIONS)
def test_whatever_the_page_allows_or_forbids_is_answered_as_it_says(
    urls: dict[str, str], name: str, operation: Any, mode: GenerationMode
) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if mode is VALID:
            case.body = _whole(case.body)
        conforms(case, case.call(base_url=urls[name], timeout=60), mode)

    ask()

"""The rule of curl: the service at that port has the route, and its contract takes the body. Asks nobody."""

import json
import re
import string
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import BaseModel

from services.core import contracts
from services.orchestrator.api.jobs import jobs_router
from services.orchestrator.jobs.service import Jobs
from services.orchestrator.jobs.settings import JobSettings
from tests.docs.shell import Command
from tests.fakes import FakeGenerator, FakeVerifier
from tests.serving import all_in_one_app, generator_app, verifier_app

_HEADERS = {
    "authorization",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "x-priority",
    "x-request-id",
    "x-request-timeout-ms",
}
_WITH_VALUE = {"-H": "header", "--header": "header", "-d": "body", "--data": "body", "-X": "method", "-o": "output"}
_SWITCHES = set("sSfNiv")


@cache
def _apps() -> dict[int, FastAPI]:
    """By the port of each service; `e2h up` has every route."""
    generator, verifier = FakeGenerator([]), FakeVerifier()
    jobs = Jobs(JobSettings(), generator, verifier, None)
    return {
        8100: all_in_one_app(generator, verifier, more=[jobs_router(jobs)]),
        8101: generator_app(generator),
        8102: verifier_app(verifier),
    }


def curl(command: Command) -> set[str]:
    """Raises `AssertionError` or pydantic's `ValidationError`. Needs nothing but the service that the page started."""
    asked = _asked(command)
    parts = urlsplit(asked["url"] if "://" in asked["url"] else f"http://{asked['url']}")
    assert parts.hostname in ("localhost", "127.0.0.1"), "an example asks this machine"
    assert parts.port in _apps(), f"no service listens at {parts.port}"
    body = asked.get("body")
    method = asked.get("method", "GET" if body is None else "POST")
    operation = _operation(_apps()[parts.port], method, parts.path)
    names = {header.partition(":")[0].strip().lower() for header in asked["header"]}
    assert names <= _HEADERS, f"headers that nobody reads: {sorted(names - _HEADERS)}"
    if "requestBody" not in operation:
        assert body is None, f"{method} {parts.path} takes no body"
        return set()
    assert body is not None, f"{method} {parts.path} wants a body"
    assert any("application/json" in header.lower() for header in asked["header"]), "curl would send a form"
    contract(operation).model_validate_json(_filled(body, command))
    return set()


def _asked(command: Command) -> dict[str, Any]:
    asked: dict[str, Any] = {"header": []}
    words = iter(command.words[1:])
    for word in words:
        if name := _WITH_VALUE.get(word):
            value = next(words)
            asked.update({name: [*asked["header"], value] if name == "header" else value})
        elif word.startswith("-"):
            assert set(word[1:]) <= _SWITCHES, f"an option of curl that no rule knows: {word}"
        else:
            assert "url" not in asked, "one address"
            asked["url"] = word
    return asked


def _operation(app: FastAPI, method: str, path: str) -> dict[str, Any]:
    """What the OpenAPI page says of a route. A word in capitals, or a variable, stands for a part of its path."""
    for template, operations in app.openapi()["paths"].items():
        pattern = re.sub(r"\{\w+\}", r"[^/]+", template)
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return dict(operations[method.lower()])
    raise AssertionError(f"no route {method} {path}")


def contract(operation: dict[str, Any]) -> type[BaseModel]:
    """The type that validates the body of a route."""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    model = getattr(contracts, schema.rpartition("/")[2])
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return model


def _filled(body: str, command: Command) -> str:
    """The body as the shell would send it: files that the page wrote, and a text for each variable."""
    if body.startswith("@"):
        return command.files[body[1:]]
    names = re.findall(r"\$(\w+)", body)
    return json.dumps(json.loads(string.Template(body).substitute(dict.fromkeys(names, "What is 2 + 2?"))))


def chat_contract() -> type[BaseModel]:
    """The contract of OpenAI's route."""
    return contract(_operation(_apps()[8100], "POST", "/v1/chat/completions"))

"""API keys over a real socket: who is let in where, and that nothing tells a key or the lack of one apart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import APIRouter
from pydantic import SecretStr

from services.core.contracts import GenerateRequest, ScoreRequest
from services.core.errors import RateLimited, Unauthorized
from services.orchestrator.clients.generator import HttpGenerator
from services.orchestrator.clients.transport import upstream
from services.orchestrator.clients.verifier import HttpVerifier
from services.runtime import middleware
from services.runtime.app import Lifecycle
from services.runtime.auth import FailedAttempts, KeyRing, is_loopback, reason_not_to_serve, scope_of
from services.runtime.keys import Scope, change_keys, new_key
from services.runtime.settings import RuntimeSettings
from tests.fakes import FakeGenerator, FakeVerifier, solution
from tests.services.test_bad_inputs import BODIES, ROUTES, SCORE, SOLVE, Reply, Sent, exchange, plain, refused
from tests.serving import Address, all_in_one_app, eventually, served, serving_app

EVERYWHERE = "0.0.0.0"  # noqa: S104 - refused, or bound by nobody


@dataclass
class Gate:
    """A served app that asks for keys, and the file of them."""

    address: Address
    path: Path
    generator: FakeGenerator

    def key(self, *scopes: Scope, tenant: str = "acme", **options: Any) -> str:
        key, record = new_key(tenant, scopes, **options)
        change_keys(self.path, lambda present: (*present, record))
        return key

    async def ask(self, path: str, *authorization: str, method: str = "POST", query: str = "") -> Reply:
        headers = [("content-type", "application/json"), *(("authorization", value) for value in authorization)]
        body = plain(path) if path in BODIES and method == "POST" else b""
        return await exchange(self.address, path + query, Sent(body, tuple(headers), method))

    async def admits(self, path: str, key: str) -> int:
        """The status, once the server has seen the last change of the file."""
        await asyncio.sleep(0.3)
        return (await self.ask(path, f"Bearer {key}")).status


@contextlib.asynccontextmanager
async def gate(path: Path, **settings: Any) -> AsyncIterator[Gate]:
    change_keys(path, lambda present: present)
    generator = FakeGenerator([solution("42")])
    app = all_in_one_app(generator, FakeVerifier(), RuntimeSettings(api_keys_file=path, **settings))
    async with served(app) as address:
        yield Gate(address, path, generator)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Gate]:
    async with gate(tmp_path / "keys.json") as opened:
        yield opened


async def test_17_whoever_has_no_valid_key_is_told_the_same(door: Gate) -> None:
    key = door.key("admin")
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    expired = door.key("admin", expires=datetime.now(UTC) - timedelta(seconds=1))
    assert await door.admits(SOLVE, key) == 200
    asked = len(door.generator.requests)
    replies = [
        await door.ask(SOLVE),
        await door.ask(SOLVE, ""),
        await door.ask(SOLVE, f"Bearer {wrong}"),
        await door.ask(SOLVE, "Bearer e2h_aaaaaaaa_" + "A" * 43),
        await door.ask(SOLVE, f"Bearer {expired}"),
        await door.ask(SOLVE, f"Basic {key}"),
        await door.ask(SOLVE, key),
        await door.ask(SOLVE, f"Bearer {key} {key}"),
        await door.ask(SOLVE, f"Bearer {key}\xe9"),
        await door.ask(SOLVE, f"Bearer {key}", f"Bearer {key}"),
        await door.ask(SOLVE, f"Bearer {key}", "Basic x"),
        await door.ask(SOLVE, query=f"?api_key={key}"),
        await door.ask(SOLVE, f"Bearer {key}", query=f"?api_key={key}"),
        await door.ask(SOLVE, f"Bearer {key}", query=f"?k={key.replace('e2h', '%652h')}"),
        await door.ask("/nowhere"),
        await door.ask("/metrics", method="GET"),
    ]
    for reply in replies:
        refused(reply, 401, "unauthorized")
        assert reply.headers["www-authenticate"] == 'Bearer realm="e2h"'
        assert key.encode() not in reply.body
    without_ids = {(r.status, r.json["error"]["message"], len(r.body), tuple(sorted(r.headers))) for r in replies}
    assert len(without_ids) == 1
    assert len(door.generator.requests) == asked


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_17_the_scheme_is_spelled_in_any_case(door: Gate, scheme: str) -> None:
    key = door.key("solve")
    await asyncio.sleep(0.3)
    assert (await door.ask(SOLVE, f"{scheme}  {key} ")).status == 200


@pytest.mark.parametrize("route", ROUTES)
async def test_18_a_key_opens_what_its_scope_says_and_nothing_else(door: Gate, route: str) -> None:
    wanted = scope_of(route)
    assert wanted is not None
    right = door.key(wanted)
    wrong = door.key("jobs")
    assert await door.admits(route, right) == 200
    reply = await door.ask(route, f"Bearer {wrong}")
    assert wanted in refused(reply, 403, "forbidden")


async def test_18_a_key_for_scores_starts_no_job(door: Gate) -> None:
    key = door.key("score")
    assert await door.admits("/v1/jobs", key) == 403
    assert await door.admits("/v1/jobs/abc/results", key) == 403


@pytest.mark.parametrize("path", ["/nowhere", "//v1/solve", "/v1/../metrics"])
async def test_an_unknown_path_is_not_found_by_those_with_a_key(door: Gate, path: str) -> None:
    assert await door.admits(path, door.key("score")) == 404


async def test_a_route_that_no_scope_opens_is_not_served() -> None:
    router = APIRouter()
    router.add_api_route("/v1/route-of-tomorrow", lambda: None)
    with pytest.raises(ValueError, match="/v1/route-of-tomorrow has no scope"):
        serving_app([router], Lifecycle())


@pytest.mark.parametrize("path", ["/health", "/ready", "/docs", "/openapi.json"])
async def test_probes_and_docs_need_no_key(door: Gate, path: str) -> None:
    assert (await door.ask(path, method="GET")).status == 200


async def test_the_openapi_page_says_which_routes_want_a_key(door: Gate) -> None:
    document = (await door.ask("/openapi.json", method="GET")).json
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["paths"][SOLVE]["post"]["security"] == [{"bearer": []}]
    assert "security" not in document["paths"]["/health"]["get"]


async def test_metrics_are_for_those_with_their_scope_and_name_no_key(door: Gate) -> None:
    key = door.key("metrics")
    await asyncio.sleep(0.3)
    await door.ask(SOLVE, f"Bearer {key}")
    text = (await door.ask("/metrics", f"Bearer {key}", method="GET")).body.decode()
    assert 'e2h_auth_refusals_total{reason="forbidden"} 1.0' in text
    assert key.split("_")[1] not in text
    assert "acme" not in text


async def test_a_key_that_was_made_holds_at_once_and_one_that_was_revoked_does_not(door: Gate) -> None:
    key = door.key("solve")
    assert await door.admits(SOLVE, key) == 200
    change_keys(door.path, lambda present: ())
    assert await door.admits(SOLVE, key) == 401


async def test_a_broken_file_leaves_the_last_keys_and_says_so(door: Gate) -> None:
    key = door.key("solve")
    assert await door.admits(SOLVE, key) == 200
    door.path.write_text("{")
    assert await door.admits(SOLVE, key) == 200
    ready = await door.ask("/ready", method="GET")
    assert ready.status == 200
    assert any("API keys" in told for told in ready.json["degraded"])
    anew = new_key("acme", ["solve"])
    door.path.unlink()
    assert await door.admits(SOLVE, key) == 401
    change_keys(door.path, lambda present: (*present, anew[1]))
    assert await door.admits(SOLVE, anew[0]) == 200
    assert (await door.ask("/ready", method="GET")).json["degraded"] == []


async def test_a_log_names_the_tenant_and_masks_every_key(
    door: Gate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A logger of its own: an earlier test of this process may have configured the one that the module holds.
    chain: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.LogfmtRenderer(),
    ]
    told = structlog.wrap_logger(structlog.PrintLogger(), processors=chain, wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr(middleware, "_log", told)
    key = door.key("solve")
    await door.admits(SOLVE, key)
    await door.ask(f"/{key}", f"Bearer {key}", method="GET")
    printed = capsys.readouterr()
    assert "tenant=acme" in printed.out
    assert key.split("_", 2)[2] not in printed.out + printed.err


def test_a_ring_shows_no_key(tmp_path: Path) -> None:
    key, record = new_key("acme", ["score"])
    change_keys(tmp_path / "k", lambda present: (record,))
    ring = KeyRing(tmp_path / "k")
    ring.load()
    assert ring.find(key) == record
    assert key.split("_", 2)[2] not in repr(ring) + repr(vars(ring))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST")),
        *((host, False) for host in (EVERYWHERE, "::", "10.0.0.1", "", "example.org", "localhost.example.org")),
    ],
)
def test_only_this_machine_reaches_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "insecure", "keyed", "refused_for"),
    [
        pytest.param("127.0.0.1", False, False, None, id="loopback"),
        pytest.param(EVERYWHERE, False, False, "without API keys", id="everywhere"),
        pytest.param(EVERYWHERE, True, False, None, id="everywhere, said to be insecure"),
        pytest.param(EVERYWHERE, False, True, None, id="everywhere with keys"),
    ],
)
def test_beyond_loopback_there_is_a_key_or_a_word(
    tmp_path: Path, host: str, insecure: bool, keyed: bool, refused_for: str | None
) -> None:
    change_keys(tmp_path / "k", lambda present: (new_key("acme", ["score"])[1],))
    ring = KeyRing(tmp_path / "k") if keyed else None
    told = reason_not_to_serve(RuntimeSettings(host=host, insecure=insecure), ring)
    assert (told is None) if refused_for is None else (told is not None and refused_for in told[0])


@pytest.mark.parametrize("content", [None, "{"], ids=["no file", "a broken file"])
def test_a_service_does_not_start_on_keys_that_it_cannot_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "k").write_text(content)
    told = reason_not_to_serve(RuntimeSettings(), KeyRing(tmp_path / "k"))
    assert told is not None
    assert str(tmp_path) not in told[0]


async def test_a_body_without_a_key_is_not_read(door: Gate) -> None:
    reply = await exchange(door.address, SCORE, Sent(b"{", length=10**6))
    refused(reply, 401, "unauthorized")
    assert await eventually(lambda: door.generator.requests == [])


# --- too often without a key -----------------------------------------------------------------------------------------


async def test_an_address_that_keeps_coming_without_a_valid_key_is_told_to_wait(tmp_path: Path) -> None:
    async with gate(tmp_path / "keys.json", auth_failure_rate="5/hour") as door:
        key = door.key("solve")
        assert await door.admits(SOLVE, key) == 200
        tried = [(), ("Bearer e2h_wrong",), (f"Bearer {key[:-1]}",), ("Basic x",), ()]
        assert [(await door.ask(SOLVE, *given)).status for given in tried] == [401] * 5
        for given in tried:
            reply = await door.ask(SOLVE, *given)
            refused(reply, 429, "rate_limited")
            assert int(reply.headers["retry-after"]) > 60
        assert (await door.ask(SOLVE, f"Bearer {key}")).status == 200  # which it does not hold up
        assert (await door.ask("/health", method="GET")).status == 200


def test_failed_attempts_are_counted_in_windows_and_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.runtime.auth._MOST_ADDRESSES", 3)
    now = 0.0
    attempts = FailedAttempts("2/minute", lambda: now)
    for address in ("a", "a", "b"):
        attempts.count(address)
    with pytest.raises(RateLimited) as refusal:
        attempts.count("a")
    assert refusal.value.retry_after_s == 60
    now = 61.0
    attempts.count("a")
    for stranger in range(100):
        attempts.count(str(stranger))
    assert len(attempts._counts) == 3


# --- keys between our services ---------------------------------------------------------------------------------------


async def test_the_orchestrator_shows_its_key_to_services_that_ask_for_one(tmp_path: Path) -> None:
    async with gate(tmp_path / "keys.json") as door:
        key = door.key("score", "generate")
        await asyncio.sleep(0.3)
        for given, status in ((SecretStr(key), 200), (None, 401)):
            behind = upstream("service", door.address.url, connect_timeout_s=2, read_timeout_s=20, api_key=given)
            generator, verifier = HttpGenerator(behind), HttpVerifier(behind)
            assert await behind.ready() is None
            if status == 200:
                await verifier.score(ScoreRequest.model_validate({"problem": "p", "solutions": [{"text": "a"}]}))
                assert len([event async for event in generator.generate(GenerateRequest(problem="p"))]) == 2
            else:
                with pytest.raises(Unauthorized):
                    await verifier.score(ScoreRequest.model_validate({"problem": "p", "solutions": [{"text": "a"}]}))
            assert key not in repr(behind.__dict__)
            await behind.close()

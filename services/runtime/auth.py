"""Who may call what: bearer keys out of a file that may change while we serve, and the scope that each route asks for.

Open to anyone: `/health` and `/ready` (probes have no keys), `/docs` and `/openapi.json` (they say what the source
says). Everything else needs a key once a file of keys is set, an unknown path included.
"""

import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from urllib.parse import unquote_plus

import structlog
from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.errors import Forbidden, RateLimited, Unauthorized
from services.runtime import context, keys
from services.runtime.addresses import network_of
from services.runtime.keys import KeyRecord, KeysFileError
from services.runtime.settings import RuntimeSettings

_log = structlog.get_logger("e2h.auth")

OPEN_PATHS = frozenset({"/health", "/ready", "/docs", "/openapi.json"})
# None: any key will do.
_ROUTES: dict[str, keys.Scope | None] = {
    "/metrics": "metrics",
    "/v1/models": None,
    "/v1/solve": "solve",
    "/v1/vote": "solve",
    "/v1/chat/completions": "solve",
    "/v1/score": "score",
    "/v1/rerank": "score",
    "/v2/rerank": "score",
    "/v1/generate": "generate",
    "/v1/grade": "grade",
    "/v1/jobs": "jobs",
}
_BELOW: dict[str, keys.Scope | None] = {"/v1/models/": None, "/v1/jobs/": "jobs"}
# A revoked key stops working within this time.
_LOOK_AGAIN_S = 0.25
# Of addresses without a valid key; a few hundred bytes each.
_MOST_ADDRESSES = 10_000
_CALLER = "e2h.caller"
_NOBODY = "0" * 64
_REFUSED = "a valid API key is needed, as the header authorization: Bearer KEY"


def scope_of(path: str) -> keys.Scope | None:
    """What a path asks of a key; None when any key will do, as for a path that nothing serves."""
    if path in _ROUTES:
        return _ROUTES[path]
    return next((scope for begin, scope in _BELOW.items() if path.startswith(begin)), None)


def require_scopes(paths: Iterable[str]) -> None:
    """Raises `ValueError` for a path of the API that the tables above forgot: it would be open to every key."""
    for path in paths:
        if path.startswith(("/v1/", "/v2/")) and path not in _ROUTES and not path.startswith(tuple(_BELOW)):
            raise ValueError(f"the route {path} has no scope in {__name__}")


def caller_of(scope: Scope) -> KeyRecord | None:
    """The key that the request came with; None where no keys are asked for, and on open paths."""
    return cast(KeyRecord | None, scope.get(_CALLER))


class KeyRing:
    """The keys of a file. What changes in the file holds within a quarter of a second.

    A file that is gone leaves no key valid. One that is broken leaves the last keys valid, and `ready` says so.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, KeyRecord] = {}
        self._seen: tuple[int, int, int] | None = None
        self._looked = -math.inf
        self._trouble: str | None = None

    def load(self) -> None:
        """Read the file. Raises `KeysFileError`; the keys are then what they were."""
        try:
            self._seen = self._signature()
            records = keys.read_keys(self._path)
        except FileNotFoundError:
            self._records = {}
            self._seen = None
            raise KeysFileError("the file of API keys does not exist") from None
        self._records = {record.prefix: record for record in records}

    def reload(self) -> None:
        """`load` for a service that runs: a fault is logged and told by `ready`."""
        try:
            self.load()
        except KeysFileError as error:
            self._trouble = str(error)
            _log.error("keys", trouble=str(error), valid=len(self._records))
        else:
            self._trouble = None
            _log.info("keys", valid=len(self._records))

    def find(self, text: str) -> KeyRecord | None:
        """The record of this key; None when it is not valid (any more)."""
        self._look_again()
        record = self._records.get(keys.prefix_of(text) or "")
        # Compared also where there is no such key, so that both take the same time.
        same = hmac.compare_digest(keys.digest(text), _NOBODY if record is None else record.sha256)
        return record if same and record is not None and not record.expired(datetime.now(UTC)) else None

    async def ready(self) -> str | None:
        """What is wrong with the file, for the readiness page."""
        self._look_again()
        return self._trouble

    def _look_again(self) -> None:
        if time.monotonic() - self._looked < _LOOK_AGAIN_S:
            return
        first, self._looked = math.isinf(self._looked), time.monotonic()
        try:
            changed = self._signature() != self._seen
        except OSError:
            changed = self._seen is not None
        if changed or (first and not self._records):
            self.reload()

    def _signature(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size


class FailedAttempts:
    """How often each address came without a valid key, in windows of fixed length and in bounded memory."""

    def __init__(self, rate: str, clock: Callable[[], float] = time.monotonic) -> None:
        allowed = keys.parse_rate(rate)
        self._most, self._window_s = allowed.amount, float(allowed.get_expiry())
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when the window began, and how many

    def count(self, address: str) -> None:
        """Take note of one more. Raises `RateLimited`, with the rest of the window, when there were too many."""
        now = self._clock()
        began, count = self._counts.pop(address, (now, 0))
        if now - began >= self._window_s:
            began, count = now, 0
        self._counts[address] = (began, count + 1)
        if len(self._counts) > _MOST_ADDRESSES:  # whoever was quiet longest is forgotten
            self._counts.popitem(last=False)
        if count >= self._most:
            raise RateLimited("too many requests without a valid API key", retry_after_s=began + self._window_s - now)


class Authentication:
    """Pure ASGI middleware. Raises `Unauthorized`, `RateLimited` or `Forbidden`, which the outermost layer answers."""

    def __init__(self, app: ASGIApp, ring: KeyRing, registry: CollectorRegistry, failure_rate: str) -> None:
        self._app = app
        self._ring = ring
        self._failed = FailedAttempts(failure_rate)
        self._refusals = Counter(
            "e2h_auth_refusals_total", "Requests refused, by reason", ("reason",), registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            scope[_CALLER] = self._admitted(scope)
        await self._app(scope, receive, send)

    def _admitted(self, scope: Scope) -> KeyRecord:
        record = self._ring.find(_key_of(scope))
        if record is None:
            self._refusals.labels("unauthorized").inc()
            self._failed.count(network_of(scope))
            raise Unauthorized(_REFUSED)
        context.set_tenant(record.tenant)
        structlog.contextvars.bind_contextvars(tenant=record.tenant, key=record.prefix)
        wanted = scope_of(scope["path"])
        if wanted is not None and not record.allows(wanted):
            self._refusals.labels("forbidden").inc()
            raise Forbidden(f"this API key lacks the scope {wanted}")
        return record


def _key_of(scope: Scope) -> str:
    """The key of the one Authorization header; an empty string, which no key is, where there is not exactly one.

    A key in the address is refused whatever else is sent: addresses are written into the logs of what lies between.
    """
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    query = unquote_plus(scope.get("query_string", b"").decode("latin-1"))
    if len(given) != 1 or keys.holds_key(query):
        return ""
    scheme, _, key = given[0].decode("latin-1").strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def reason_not_to_serve(settings: RuntimeSettings, ring: KeyRing | None) -> tuple[str, str] | None:
    """What forbids to listen with these settings, and its mend. Reads the keys."""
    if ring is not None:
        try:
            ring.load()
        except KeysFileError as error:
            return str(error), "make one with `e2h keys create --file FILE`, or unset E2H_API_KEYS_FILE"
    elif not settings.insecure and not is_loopback(settings.host):
        return (
            f"listening on {settings.host} without API keys would let anyone on the network in",
            "set E2H_API_KEYS_FILE (`e2h keys create`), or E2H_INSECURE=true (--insecure) on a trusted network",
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than localhost may mean anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"

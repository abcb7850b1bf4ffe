"""One request and what its answer says of it. Knows HTTP; knows no schedule."""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

import httpx2
from pydantic import ValidationError

from services.cli.bench.plan import CONTRACT, TIMEOUT, TRANSPORT, Plan, Sample
from services.cli.remote import headers
from services.core.contracts import ScoreResponse, SolveResponse
from services.runtime.timing_headers import parse_timings

_REFUSED = (429, 503)
# Servers close idle connections after some seconds (uvicorn: 5), and what is sent on one just then is lost: an error of
# the tester's making, since a pause leaves it with hundreds of them.
_KEPT_IDLE_S = 1.0


class Reader(Protocol):
    """What an answer with status 200 says, as fields of `Sample`. Raises pydantic's `ValidationError`."""

    def __call__(self, response: httpx2.Response) -> dict[str, object]: ...


def read_score(response: httpx2.Response) -> dict[str, object]:
    """`POST /v1/score`: times and batch from the headers, tokens from the body."""
    answer, timings = ScoreResponse.model_validate_json(response.content), parse_timings(response.headers)
    return {
        "parts": {
            "tokenize": timings.tokenize_ms,
            "queue": timings.queue_ms,
            "inference": timings.inference_ms,
        },
        "batch_tokens": timings.batch_tokens,
        "batch_solutions": timings.batch_solutions,
        "tokens": answer.usage.tokens,
        "tokens_computed": answer.usage.tokens_computed,
        "failed_items": sum(solution.error is not None for solution in answer.solutions),
    }


def read_solve(response: httpx2.Response) -> dict[str, object]:
    """`POST /v1/solve`: sampling and scoring overlap, so `verify` is what scoring took beyond the last sample."""
    answer = SolveResponse.model_validate_json(response.content)
    times = answer.timings_ms
    return {
        "parts": {
            "generate": times.generate,
            "verify": max(0.0, times.verify - times.generate),
            "vote": times.vote,
        },
        "tokens": answer.usage.verifier_tokens,
        "tokens_computed": answer.usage.verifier_tokens_computed,
        "failed_items": sum(candidate.excluded == "not_scored" for candidate in answer.candidates),
    }


class Client:
    """Sends bodies to one route for the length of a phase."""

    def __init__(self, plan: Plan, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._clock = clock
        self._reader: Reader = read_score if plan.load.kind == "verifier" else read_solve
        self._url = plan.url.rstrip("/") + plan.load.path
        # As many connections as there are callers who wait: a bound would make them wait here, unseen.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEPT_IDLE_S)
        self._http = httpx2.AsyncClient(limits=limits, timeout=None, headers=headers())

    async def close(self) -> None:
        await self._http.aclose()

    async def exchange(self, body: bytes, due: float) -> Sample:
        """Send, and wait for the answer; never raises for what the server or the network does."""
        sent, tries, status, read = self._clock(), 0, TIMEOUT, {}
        try:
            async with asyncio.timeout(self._plan.timeout_s):
                while True:
                    tries += 1
                    response = await self._http.post(self._url, content=body)
                    status = str(response.status_code)
                    wait = self._told_to_wait(response)
                    if wait is None:
                        break
                    await asyncio.sleep(wait)
            if response.status_code == 200:
                read = self._reader(response)
        except TimeoutError:
            pass  # while it waits to try again, the refusal that it was told stands
        except (httpx2.HTTPError, httpx2.InvalidURL):
            status = TRANSPORT
        except ValidationError:
            status = CONTRACT
        return Sample.model_validate(
            {"due": due, "sent": sent, "done": self._clock(), "status": status, "tries": tries, **read}
        )

    def _told_to_wait(self, response: httpx2.Response) -> float | None:
        """Seconds after which to try again; None when this answer is the last."""
        if not self._plan.honour_retry_after or response.status_code not in _REFUSED:
            return None
        wait = response.headers.get("retry-after", "")
        return float(wait) if wait.isdecimal() and math.isfinite(float(wait)) else None

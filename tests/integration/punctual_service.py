"""A real process for tests of the load tester: it answers `POST /v1/score` after a given time, and does nothing else.

    python -m tests.integration.punctual_service PORT SECONDS [STATUS]

`x-inference-ms` tells how long it really waited. With STATUS every second request is refused with it, `Retry-After: 1`.
"""

import asyncio
import itertools
import sys
import time

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.contracts import Aggregates, ScoreResponse, ScoreTimings, ScoreUsage, SolutionScore, StepScore
from services.runtime.timing_headers import timing_headers

_SOLUTION = SolutionScore(
    index=0,
    steps=[StepScore(score=0.5)],
    outcome=None,
    aggregate=Aggregates.of([0.5], None),
    first_error=None,
    tokens=10,
    cached=False,
    flags=[],
    error=None,
)
_ANSWER = ScoreResponse(
    id="score-x",
    model="punctual",
    kind="prm",
    solutions=[_SOLUTION],
    usage=ScoreUsage(tokens=10, tokens_computed=4, tokens_cached=6),
)


def build(seconds: float, refusal: int | None) -> ASGIApp:
    numbers = itertools.count()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body", False):
            pass
        if scope["path"] != "/v1/score":
            await _answer(send, 200, b"{}", {})
        elif refusal is not None and next(numbers) % 2 == 0:
            await _answer(send, refusal, b"{}", {"retry-after": "1"})
        else:
            began = time.perf_counter()
            await asyncio.sleep(seconds)
            waited = (time.perf_counter() - began) * 1000
            timings = ScoreTimings(tokenize_ms=0, queue_ms=0, inference_ms=waited, batch_tokens=4, batch_solutions=1)
            await _answer(send, 200, _ANSWER.model_dump_json().encode(), timing_headers(timings))

    return app


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    found = {**headers, "content-type": "application/json", "content-length": str(len(body))}
    raw = [(name.encode(), value.encode()) for name, value in found.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        build(float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None),
        port=int(sys.argv[1]),
        log_level="error",
        lifespan="off",
    )

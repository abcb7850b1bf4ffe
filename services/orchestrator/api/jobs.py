"""`/v1/jobs`: submit, list, look, follow, read results, cancel. No logic but the translation.

Tenants see their own jobs only: another's id is answered as one that does not exist. Without API keys there is one.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from services.core.contracts import Job, JobList, JobRequest
from services.core.errors import NotFound
from services.orchestrator.evaluation.findings import Report
from services.orchestrator.jobs.service import Jobs, lines_of
from services.runtime.app import error_responses
from services.runtime.auth import caller_of
from services.runtime.bodies import describe_body, json_response, read_body, while_connected
from services.runtime.idempotency import PARAMETER, key_of
from services.runtime.sse import KEEP_ALIVE_S, STREAMED, EventStream, encode_event, guarded, kept_alive

_JOB_ID = re.compile(r"job-[0-9a-f]{32}")
_JOB = {
    "dataset": {"items": [{"id": "one", "problem": "What is 6 times 7?", "answer": "42", "level": 1}]},
    "n": 16,
    "seed": 7,
}
_JSONL: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}


def jobs_router(jobs: Jobs, keep_alive_s: float = KEEP_ALIVE_S) -> APIRouter:
    """The routes of `jobs`."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post(
        "",
        status_code=202,
        response_model=Job,
        responses={200: {"model": Job}, **error_responses(400, 404, 413, 415, 422, 429, 503)},
        openapi_extra=describe_body(JobRequest, _JOB) | {"parameters": [PARAMETER]},
    )
    async def submit(request: Request) -> Response:
        """Sample and score a data set in the background: 202 once the job is kept on disk.

        With an `Idempotency-Key`, the same body again answers 200 and the same job for a day.
        """
        body = await read_body(request, JobRequest)
        job, new = await jobs.submit(body, _tenant(request), key_of(request))
        response = json_response(job)
        response.status_code = 202 if new else 200
        return response

    @router.get("", response_model=JobList, responses=error_responses(503))
    async def newest(request: Request) -> Response:
        """The newest hundred jobs, newest first."""
        return json_response(JobList(data=await jobs.newest(_tenant(request))))

    @router.get("/{job}", response_model=Job, responses=error_responses(404, 503))
    async def look(request: Request, job: str) -> Response:
        """How a job stands: items done, given up, and how long it may still take."""
        return json_response(await jobs.get(_tenant(request), _checked(job)))

    @router.get("/{job}/events", responses={**STREAMED, **error_responses(400, 404, 503)})
    async def follow(request: Request, job: str) -> Response:
        """Server-sent events: `progress` as items end, to the end of the job. `Last-Event-ID` goes on after an event;
        one that lies ahead of the stream starts at its end."""
        last = request.headers.get("last-event-id")
        events = kept_alive(_events(jobs, _tenant(request), _checked(job), last), keep_alive_s)
        return EventStream(await while_connected(request, guarded(events)))

    @router.get("/{job}/results", responses={**_JSONL, **error_responses(404, 409, 503)})
    async def results(request: Request, job: str) -> Response:
        """The samples, a JSON line a problem, once the job is complete; 409 before."""
        store = await jobs.results(_tenant(request), _checked(job))
        return StreamingResponse(lines_of(store), media_type="application/x-ndjson")

    @router.get("/{job}/report", response_model=Report, responses=error_responses(404, 409, 503))
    async def report(request: Request, job: str) -> Response:
        """Accuracies with intervals and the verifier's quality, once the job is complete; 409 before."""
        return json_response(await jobs.report(_tenant(request), _checked(job)))

    @router.delete("/{job}", response_model=Job, responses=error_responses(404, 503))
    async def cancel(request: Request, job: str) -> Response:
        """End a job. Running items stop within seconds; one that has ended stays as it is."""
        return json_response(await jobs.cancel(_tenant(request), _checked(job)))

    return router


async def _events(jobs: Jobs, tenant: str, job: str, last: str | None) -> AsyncGenerator[bytes, None]:
    async with aclosing(jobs.events(tenant, job, last)) as events:
        async for event in events:
            yield f"id: {event.id}\n".encode() + encode_event("progress", event.progress)
    yield b"event: done\ndata: {}\n\n"


def _tenant(request: Request) -> str:
    caller = caller_of(request.scope)
    return "" if caller is None else caller.tenant


def _checked(job: str) -> str:
    """An id that we could have given; nothing else is looked up."""
    if _JOB_ID.fullmatch(job) is None:
        raise NotFound("no such job")
    return job

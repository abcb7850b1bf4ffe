"""`POST /v1/solve`, streamed or not, and `POST /v1/vote`. No logic but the translation."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.core.aggregation import Aggregation
from services.core.contracts import (
    CandidateEvent,
    ScoreEvent,
    SolveRequest,
    SolveResponse,
    VoteEvent,
    VoteRequest,
    VoteResponse,
)
from services.core.ports import Grader, ProblemSolver
from services.orchestrator.voting import vote
from services.runtime.app import error_responses
from services.runtime.bodies import describe_body, json_response, read_body, while_connected
from services.runtime.idempotency import PARAMETER, once, refuse_key
from services.runtime.sse import KEEP_ALIVE_S, STREAMED, EventStream, encode_event, guarded, kept_alive

BODIES = (SolveRequest, VoteRequest)

_EVENTS = {CandidateEvent: "candidate", ScoreEvent: "score", VoteEvent: "vote", SolveResponse: "result"}
_SOLVE = {"problem": "What is 6 times 7?", "n": 8, "strategy": "weighted", "sampling": {"seed": 7}}
_VOTE = {
    "candidates": [
        {"answer": "42", "step_scores": [0.9, 0.8]},
        {"answer": "41", "step_scores": [0.9, 0.2]},
        {"text": "6 times 7 is 42.\n\n# Answer\n\n42", "score": 0.7},
    ],
    "strategy": "weighted",
    "aggregation": "prod",
}


def solve_router(solver: ProblemSolver, grader: Grader, keep_alive_s: float = KEEP_ALIVE_S) -> APIRouter:
    """The routes that answer with `solver`, and group answers with `grader`."""
    router = APIRouter(prefix="/v1", tags=["solve"])

    @router.post(
        "/solve",
        response_model=SolveResponse,
        responses=STREAMED | error_responses(400, 413, 415, 422, 429, 502, 503, 504),
        openapi_extra=describe_body(SolveRequest, _SOLVE) | {"parameters": [PARAMETER]},
    )
    async def solve(request: Request) -> Response:
        """Sample n solutions, score every step, choose an answer; the response holds the evidence.

        With `stream`, server-sent events: `candidate` as each sample comes, `score` as each is scored, `vote` with
        the leader so far, and last `result`, the response, or `error`; a stream takes no `Idempotency-Key`.
        """
        body = await read_body(request, SolveRequest)
        if body.stream:
            refuse_key(request, "a stream is not sent again; leave the key out, or `stream`")
            events = kept_alive(_events(solver, body), keep_alive_s)
            return EventStream(await while_connected(request, guarded(events)))
        return await once(request, body, lambda: _answer(solver, body))

    @router.post(
        "/vote",
        response_model=VoteResponse,
        responses=error_responses(400, 413, 415, 422, 503),
        openapi_extra=describe_body(VoteRequest, _VOTE),
    )
    async def vote_again(request: Request) -> Response:
        """Choose again among given candidates, without sampling or scoring."""
        body = await read_body(request, VoteRequest)
        aggregation = await _aggregation(solver, body)
        return json_response(await vote(body, aggregation, grader))

    return router


async def _answer(solver: ProblemSolver, body: SolveRequest) -> Response:
    return json_response(await solver.solve(body))


async def _events(solver: ProblemSolver, body: SolveRequest) -> AsyncGenerator[bytes, None]:
    async with aclosing(solver.events(body)) as events:
        async for event in events:
            yield encode_event(_EVENTS[type(event)], event)


async def _aggregation(solver: ProblemSolver, body: VoteRequest) -> Aggregation:
    """The one asked for; else the verifier's, as /v1/solve does, where there are step scores to aggregate."""
    if body.aggregation is not None:
        return body.aggregation
    if body.strategy.needs_scores and any(c.step_scores is not None for c in body.candidates):
        return await solver.default_aggregation()
    return Aggregation.OUTCOME if body.strategy.needs_scores else Aggregation.PROD

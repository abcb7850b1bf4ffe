"""`POST /v1/solve` and `POST /v1/vote`. No logic but the translation."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.core.aggregation import Aggregation
from services.core.contracts import SolveRequest, SolveResponse, VoteRequest, VoteResponse
from services.core.ports import Grader
from services.orchestrator.solver import Solver
from services.orchestrator.voting import vote
from services.runtime.app import error_responses
from services.runtime.bodies import describe_body, json_response, read_body, while_connected

BODIES = (SolveRequest, VoteRequest)

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


def solve_router(solver: Solver, grader: Grader) -> APIRouter:
    """The routes that answer with `solver`, and group answers with `grader`."""
    router = APIRouter(prefix="/v1", tags=["solve"])

    @router.post(
        "/solve",
        response_model=SolveResponse,
        responses=error_responses(400, 413, 415, 422, 429, 502, 503, 504),
        openapi_extra=describe_body(SolveRequest, _SOLVE),
    )
    async def solve(request: Request) -> Response:
        """Sample n solutions, score every step, choose an answer; the response holds the evidence."""
        body = await read_body(request, SolveRequest)
        return json_response(await while_connected(request, solver.solve(body)))

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


async def _aggregation(solver: Solver, body: VoteRequest) -> Aggregation:
    """The one asked for; else the verifier's, as /v1/solve does, where there are step scores to aggregate."""
    if body.aggregation is not None:
        return body.aggregation
    if body.strategy.needs_scores and any(c.step_scores is not None for c in body.candidates):
        return await solver.default_aggregation()
    return Aggregation.OUTCOME if body.strategy.needs_scores else Aggregation.PROD

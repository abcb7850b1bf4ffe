"""The verifier over HTTP: `POST /v1/score`, `GET /v1/models`. No logic but the translation."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.core.contracts import ScoreRequest, ScoreResponse, VerifierModels
from services.core.ports import Verifier
from services.runtime.app import error_responses
from services.runtime.bodies import describe_body, json_response, read_body, while_connected
from services.runtime.timing_headers import timing_headers

_EXAMPLE = {
    "problem": "What is 6 times 7?",
    "solutions": [{"steps": ["6 times 7 is 7 added six times.", "That makes 42.\n\n# Answer\n\n42"]}],
}


def verifier_router(verifier: Verifier) -> APIRouter:
    """`GET /v1/models` and the scoring route of `verifier`."""
    router = scoring_router(verifier)

    @router.get("/v1/models", response_model=VerifierModels, responses=error_responses(503))
    async def models() -> Response:
        """The reward model that is served, with its kind and its family's default aggregation."""
        return json_response(VerifierModels(data=[await verifier.info()]))

    return router


def scoring_router(verifier: Verifier) -> APIRouter:
    """`POST /v1/score`."""
    router = APIRouter(tags=["verifier"])

    @router.post(
        "/v1/score",
        response_model=ScoreResponse,
        responses=error_responses(400, 404, 413, 415, 422, 429, 503),
        openapi_extra=describe_body(ScoreRequest, _EXAMPLE),
    )
    async def score(request: Request) -> Response:
        """One score for every step of every solution; a solution that cannot be scored carries its own error."""
        body = await read_body(request, ScoreRequest)
        response, timings = await while_connected(request, verifier.score(body))
        return json_response(response, headers=timing_headers(timings))

    return router

"""The routes over any `Verifier`: `POST /v1/score`, `/v1/rerank`, `/v2/rerank`. No logic but the translation.

They depend on the port alone, so the verifier's own process, the orchestrator's (over its client) and all in one
serve the very same routes.
"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.core.contracts import RerankRequest, RerankResponse, ScoreRequest, ScoreResponse
from services.core.ports import Verifier
from services.core.reranking import rank, score_request
from services.runtime.app import error_responses
from services.runtime.bodies import describe_body, json_response, read_body, while_connected
from services.runtime.timing_headers import timing_headers

VERIFIER_BODIES = (ScoreRequest, RerankRequest)

_REFUSALS = (400, 404, 413, 415, 422, 429, 502, 503, 504)
_SCORE = {
    "problem": "What is 6 times 7?",
    "solutions": [{"steps": ["6 times 7 is 7 added six times.", "That makes 42.\n\n# Answer\n\n42"]}],
}
_RERANK = {
    "query": "What is 6 times 7?",
    "documents": ["6 times 7 is 42.\n\n# Answer\n\n42", {"text": "6 plus 7 is 13.\n\n# Answer\n\n13"}],
    "top_n": 1,
    "return_documents": True,
}


def scoring_router(verifier: Verifier) -> APIRouter:
    """`POST /v1/score`."""
    router = APIRouter(tags=["verifier"])

    @router.post(
        "/v1/score",
        response_model=ScoreResponse,
        responses=error_responses(*_REFUSALS),
        openapi_extra=describe_body(ScoreRequest, _SCORE),
    )
    async def score(request: Request) -> Response:
        """One score for every step of every solution; a solution that cannot be scored carries its own error."""
        body = await read_body(request, ScoreRequest)
        response, timings = await while_connected(request, verifier.score(body))
        return json_response(response, headers=timing_headers(timings))

    return router


def rerank_router(verifier: Verifier) -> APIRouter:
    """`POST /v1/rerank`, and `/v2/rerank`, which Cohere's second client asks for."""
    router = APIRouter(tags=["verifier"])

    @router.post(
        "/v1/rerank",
        response_model=RerankResponse,
        responses=error_responses(*_REFUSALS),
        openapi_extra=describe_body(RerankRequest, _RERANK),
    )
    @router.post(
        "/v2/rerank",
        response_model=RerankResponse,
        responses=error_responses(*_REFUSALS),
        openapi_extra=describe_body(RerankRequest, _RERANK),
    )
    async def rerank(request: Request) -> Response:
        """Solutions of one problem, best first, in Cohere's and Jina's schema; one that has no score is refused."""
        body = await read_body(request, RerankRequest)
        scored, timings = await while_connected(request, verifier.score(score_request(body)))
        # Asked after the scores: a client that noticed another model in them has forgotten what it knew of the first.
        how = (await verifier.info()).default_aggregation
        return json_response(rank(body, scored, how), headers=timing_headers(timings))

    return router

"""The verifier over HTTP: `GET /v1/models` beside the routes that any `Verifier` has. No logic but the translation."""

from fastapi import APIRouter
from starlette.responses import Response

from services.core.contracts import VerifierModels
from services.core.ports import Verifier
from services.runtime.app import error_responses
from services.runtime.bodies import json_response
from services.runtime.verifier_routes import rerank_router, scoring_router


def verifier_router(verifier: Verifier) -> APIRouter:
    """`GET /v1/models`, scoring and reranking with `verifier`."""
    router = APIRouter(tags=["verifier"])

    @router.get("/v1/models", response_model=VerifierModels, responses=error_responses(503))
    async def models() -> Response:
        """The reward model that is served, with its kind and its family's default aggregation."""
        return json_response(VerifierModels(data=[await verifier.info()]))

    router.include_router(scoring_router(verifier))
    router.include_router(rerank_router(verifier))
    return router

"""`POST /v1/grade`. No logic but the translation."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.core.contracts import GradeRequest, GradeResponse, GradeResult
from services.core.ports import Grader
from services.runtime.app import error_responses
from services.runtime.bodies import describe_body, json_response, read_body, while_connected

_GRADE = {
    "pairs": [
        {"gold": "\\frac{\\sqrt{3}}{3}", "pred": "1/\\sqrt{3}"},
        {"gold": "10\\text{ cm}", "pred": "10"},
        {"gold": "(1, 3)", "pred": "\\{1, 3\\}"},
    ],
    "mode": "reference",
}


def grade_router(grader: Grader) -> APIRouter:
    """The route that answers with `grader`."""
    router = APIRouter(prefix="/v1", tags=["grade"])

    @router.post(
        "/grade",
        response_model=GradeResponse,
        responses=error_responses(400, 413, 415, 422, 429, 503),
        openapi_extra=describe_body(GradeRequest, _GRADE),
    )
    async def grade(request: Request) -> Response:
        """Whether answers are equal: against a reference (units, percent signs, `x =` forgiven), or strictly."""
        body = await read_body(request, GradeRequest)
        return json_response(await while_connected(request, grade_all(grader, body)))

    return router


async def grade_all(grader: Grader, request: GradeRequest) -> GradeResponse:
    """The response to `request`."""
    verdicts = await grader.grade([(pair.gold, pair.pred) for pair in request.pairs], request.mode)
    return GradeResponse(results=[GradeResult(equal=v.equal, method=v.method, timed_out=v.timed_out) for v in verdicts])

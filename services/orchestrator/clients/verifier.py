"""HttpVerifier: our verifier service as a `Verifier`."""

from services.core.contracts import ScoreRequest, ScoreResponse, ScoreTimings, VerifierInfo, VerifierModels
from services.core.errors import UpstreamContract
from services.orchestrator.clients.transport import Upstream
from services.runtime.timing_headers import parse_timings


class HttpVerifier:
    """Scores through `POST /v1/score`; the service behind it batches across callers."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._info: VerifierInfo | None = None

    async def info(self) -> VerifierInfo:
        if self._info is None:
            models = (await self._upstream.get("/v1/models", VerifierModels)).data
            if not models:
                raise UpstreamContract("the verifier serves no model")
            self._info = models[0]
        return self._info

    async def ready(self) -> str | None:
        return await self._upstream.ready()

    async def score(self, request: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
        response, headers = await self._upstream.post("/v1/score", request, ScoreResponse)
        if self._info is not None and response.model != self._info.id:
            self._info = None  # the service came back with another model
        if [s.index for s in response.solutions] != list(range(len(request.solutions))):
            raise UpstreamContract("the verifier answered other solutions than were asked")
        for asked, scored in zip(request.solutions, response.solutions, strict=True):
            if asked.steps is not None and scored.steps and len(scored.steps) != len(asked.steps):
                raise UpstreamContract("the verifier gave a wrong number of step scores")
        return response, parse_timings(headers)

    async def close(self) -> None:
        await self._upstream.close()

"""Between OpenAI's chat schema and a solve: the request in, choices and chunks out. Pure translation."""

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from services.core.contracts import Message, SolveCandidate, SolveRequest, SolveResponse, SolveSampling
from services.core.contracts.chat import (
    MODELS,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatFinish,
    ChatReply,
    ChatRequest,
    ChatUsage,
)
from services.core.errors import InvalidRequest, ModelNotFound
from services.core.strategies import SolveStrategy
from services.core.voting import Strategy
from services.runtime.faults import invalid_request

_SAMPLING = ("temperature", "top_p", "seed")
# Those of `e2h` that a solve takes as they are.
_OPTIONS = {"n", "aggregation", "search", "early_stop", "on_verifier_failure", "reference"}


def solve_request(body: ChatRequest) -> tuple[SolveRequest, Sequence[Message]]:
    """The solve that `body` asks for, and the turns before its problem.

    Raises `ModelNotFound`, or the `InvalidRequest` that says which fields do not go together.
    """
    strategy = _strategy(body)
    *context, problem = body.messages
    given = {name: getattr(body.e2h, name) for name in _OPTIONS & body.e2h.model_fields_set}
    try:
        request = SolveRequest(problem=problem.content, strategy=strategy, sampling=_sampling(body), **given)
    except ValidationError as error:
        raise invalid_request(error) from None
    if body.choices > request.most_candidates:
        raise InvalidRequest("there are no more choices than samples; raise e2h.n or widen e2h.search", param="n")
    return request, context


def _strategy(body: ChatRequest) -> SolveStrategy:
    named = MODELS.get(body.model)
    if named is None:
        raise ModelNotFound(f"the models served here are {', '.join(MODELS)}", param="model")
    wanted = body.e2h.strategy
    if wanted not in (None, named) and body.model != "e2h":
        raise InvalidRequest("the model names another strategy than e2h.strategy", param="e2h.strategy")
    return wanted or named


def _sampling(body: ChatRequest) -> SolveSampling:
    """OpenAI's own fields and those of `e2h.sampling`; one that is given in both places is refused."""
    own: dict[str, Any] = {name: getattr(body, name) for name in _SAMPLING if getattr(body, name) is not None}
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if limit is not None:
        own["max_tokens"] = limit
    ours = {} if body.e2h.sampling is None else body.e2h.sampling.model_dump(exclude_unset=True)
    for name in own.keys() & ours.keys():
        raise InvalidRequest("this is given twice, here and as OpenAI's own field", param=f"e2h.sampling.{name}")
    return SolveSampling(**own, **ours)


class Reply:
    """The answer to one chat request under way: one id, one time, for all that is said of it."""

    def __init__(self, body: ChatRequest) -> None:
        self._body = body
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, response: SolveResponse) -> ChatCompletion:
        """The answer as one object."""
        chosen = ranked(response)[: self._body.choices]
        choices = [
            ChatChoice(index=i, message=ChatReply(content=c.text), finish_reason=_finish(c))
            for i, c in enumerate(chosen)
        ]
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._body.model,
            choices=choices,
            usage=_usage(response),
            e2h=self._evidence(response),
        )

    def opening(self) -> ChatChunk:
        """The first chunk, which names the role."""
        return self._chunk([ChatChunkChoice(delta=ChatDelta(role="assistant", content=""))])

    def chunks(self, response: SolveResponse) -> Iterator[ChatChunk]:
        """The selected answer's text, the end, and the usage where asked for."""
        best = ranked(response)[0]
        yield self._chunk([ChatChunkChoice(delta=ChatDelta(content=best.text))])
        end = self._chunk([ChatChunkChoice(delta=ChatDelta(), finish_reason=_finish(best))])
        yield end.model_copy(update={"e2h": self._evidence(response)})
        options = self._body.stream_options
        if options is not None and options.include_usage:
            yield self._chunk([]).model_copy(update={"usage": _usage(response)})

    def _chunk(self, choices: list[ChatChunkChoice]) -> ChatChunk:
        return ChatChunk(id=self._id, created=self._created, model=self._body.model, choices=choices)

    def _evidence(self, response: SolveResponse) -> SolveResponse:
        return response if self._body.e2h.include_candidates else response.model_copy(update={"candidates": []})


def ranked(response: SolveResponse) -> list[SolveCandidate]:
    """Candidates, best first, beginning with the one that `solution` shows: the members of the winning class by score,
    then those of the next; under best_of_n and beam by score alone. Those without a vote come last, by index."""
    place = {index: rank for rank, found in enumerate(response.classes) for index in found.members}
    by_score_alone = response.strategy.vote is Strategy.BEST_OF_N and response.degraded is None
    last = len(response.classes)

    def rank(candidate: SolveCandidate) -> tuple[int, float, int]:
        standing = place.get(candidate.index, last)
        # Under a majority scores decide nothing, whether they are known or not.
        score = 0.0 if response.degraded or candidate.score is None else candidate.score
        if standing == last:
            return last, 0.0, candidate.index
        return 0 if by_score_alone else standing, -score, candidate.index

    return sorted(response.candidates, key=rank)


def _finish(candidate: SolveCandidate) -> ChatFinish:
    return "stop" if candidate.finish_reason == "stop" else "length"


def _usage(response: SolveResponse) -> ChatUsage:
    read, written = response.usage.prompt_tokens, response.usage.completion_tokens
    return ChatUsage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)

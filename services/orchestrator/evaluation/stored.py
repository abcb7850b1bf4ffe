"""The samples that an evaluation keeps, as a generator: another verifier scores them, and nothing is sampled again.

Blocking where it is made: call `StoredSamples` from a thread or before the event loop.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence

from services.core.contracts import (
    Completion,
    EvaluationProblem,
    GenerateDone,
    GenerateRequest,
    GenerationUsage,
    Manifest,
    ModelInfo,
)
from services.core.errors import InvalidRequest
from services.orchestrator.evaluation.items import problem_seed
from services.orchestrator.evaluation.samples import ScoredSample
from services.orchestrator.evaluation.store import ResultsStore


class StoredSamples:
    """A `Generator` that gives each problem's samples as a finished evaluation has them, index by index.

    Verifiers that score the same samples are compared problem by problem, without the noise of sampling twice.
    """

    def __init__(self, store: ResultsStore) -> None:
        """Raises `NotFound` where there is no evaluation, `InvalidRequest` where it is not finished."""
        self.manifest: Manifest = store.manifest()
        if not store.finished:
            raise InvalidRequest("the evaluation whose samples are wanted is not finished", param="samples_from")
        self.problems: list[EvaluationProblem] = store.problems()
        # By the seed of the problem, which is made of its id: texts may repeat in a data set.
        self._samples: Mapping[int, Sequence[ScoredSample]] = {
            problem_seed(self.manifest.plan.seed, sampled.problem.id): sampled.samples for sampled in store.read()
        }

    async def info(self) -> ModelInfo:
        return ModelInfo(id=self.manifest.generator)

    async def ready(self) -> str | None:
        return None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Completion | GenerateDone, None]:
        """Raises `InvalidRequest` for a problem or an index that was not sampled."""
        kept = self._samples.get(request.sampling.seed if request.sampling.seed is not None else -1, ())
        if max(request.sample_indices) >= len(kept):
            raise InvalidRequest("this sample was not kept", param="samples_from", code="not_kept")
        for index in request.sample_indices:
            yield _completion(index, kept[index])
        # Nothing was read or sampled for this request.
        usage = GenerationUsage(prompt_tokens=0, completion_tokens=0)
        yield GenerateDone(id="stored", model=self.manifest.generator, usage=usage)


def _completion(index: int, sample: ScoredSample) -> Completion:
    return Completion.model_validate(
        {
            "index": index,
            "text": sample.text,
            "tokens": sample.tokens,
            "finish_reason": sample.finish_reason,
            "logprob": sample.logprob,
            "seed": sample.seed,
        }
    )

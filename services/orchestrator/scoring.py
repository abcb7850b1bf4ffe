"""Which samples of a solve go together in one score request. Pure.

A sample that comes while few requests of its solve are under way goes at once; what comes meanwhile goes together in
the next. Over HTTP a request costs more than the solution in it, and nobody waits for company.
"""

from collections.abc import Sequence

from services.core.contracts import ScoreRequest, SolutionInput
from services.orchestrator.run import Sample

# Of one solve at once. With one alone, a verifier would have nothing of it to do between two.
MOST_REQUESTS = 2
# A score is told with its request's last one, and bodies are bounded: a request has no more than these.
_MOST_TOGETHER, _MOST_CHARACTERS = 32, 262_144


def taken(waiting: list[Sample]) -> list[Sample]:
    """The samples to score in one request, first come first; they no longer wait. Empty only when none does."""
    count, characters = 0, 0
    for sample in waiting[:_MOST_TOGETHER]:
        characters += len(sample.completion.text)
        if count and characters > _MOST_CHARACTERS:
            break
        count += 1
    together, waiting[:] = waiting[:count], waiting[count:]
    return together


def score_request(problem: str, samples: Sequence[Sample]) -> ScoreRequest:
    """What the verifier is asked of them."""
    return ScoreRequest(problem=problem, solutions=[SolutionInput(text=sample.completion.text) for sample in samples])

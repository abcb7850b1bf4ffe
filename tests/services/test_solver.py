"""The story of one request, with fakes on both sides: overlap, duplicates, exclusions, failures, cancellation."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from itertools import permutations

import pytest
from prometheus_client import CollectorRegistry

from services.core.aggregation import Aggregation
from services.core.contracts import (
    CandidateEvent,
    ItemError,
    Message,
    ScoreEvent,
    ScoreRequest,
    ScoreResponse,
    ScoreTimings,
    SolveCandidate,
    SolveEvent,
    SolveRequest,
    SolveResponse,
    SolveSampling,
    VerifierKind,
    VoteEvent,
)
from services.core.errors import (
    ContextLengthExceeded,
    E2HError,
    InternalError,
    InvalidRequest,
    NotReady,
    Overloaded,
    UpstreamContract,
    UpstreamUnavailable,
)
from services.core.strategies import SolveStrategy
from services.core.voting import Strategy
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.solver import Solver
from tests.fakes import (
    PROMPT_TOKENS,
    TOKENS_OF_A_SAMPLE,
    TOKENS_OF_A_SOLUTION,
    FakeGenerator,
    FakeVerifier,
    InlineGrader,
    solution,
    unreachable,
)
from tests.serving import eventually

pytestmark = pytest.mark.timeout(20)  # a solve that waits for what never comes fails here and soon

GOOD, BAD, OTHER = solution("42", "good"), solution("41", "bad"), solution("40", "other")
SCORES = {"good": 0.75, "bad": 0.25, "other": 0.5}


def score_of(step: str) -> float:
    return SCORES.get(step.split("\n")[0], 0.5)


def make_solver(generator: FakeGenerator, verifier: FakeVerifier, registry: CollectorRegistry | None = None) -> Solver:
    return Solver(generator, verifier, InlineGrader(), SolveMetrics(registry or CollectorRegistry()))


async def solve(generator: FakeGenerator, verifier: FakeVerifier, request: SolveRequest) -> SolveResponse:
    return await make_solver(generator, verifier).solve(request)


def request(n: int, strategy: Strategy = Strategy.WEIGHTED, **fields: object) -> SolveRequest:
    return SolveRequest.model_validate({"problem": "What is 6 times 7?", "n": n, "strategy": strategy, **fields})


async def test_a_solve_answers_with_its_whole_evidence() -> None:
    response = await solve(FakeGenerator([GOOD, BAD, GOOD + "\n"]), FakeVerifier(score_of), request(3))
    assert (response.answer, response.solution) == ("42", GOOD)
    assert (response.model.generator, response.model.verifier) == ("fake-generator", "fake-verifier")
    assert (response.strategy, response.aggregation) == (SolveStrategy.WEIGHTED, Aggregation.PROD)
    assert response.margin == pytest.approx((1.5 - 0.25) / 1.75)
    assert [(c.answer, c.members, c.votes, c.weight, c.best_score) for c in response.classes] == [
        ("42", [0, 2], 2, 1.5, 0.75),
        ("41", [1], 1, 0.25, 0.25),
    ]
    assert [c.index for c in response.candidates] == [0, 1, 2]
    assert (response.partial, response.stopped_early, response.degraded, response.correct) == (False, False, None, None)


async def test_a_candidate_shows_its_steps_with_their_scores() -> None:
    text = solution("42", "good", "bad", "other")
    response = await solve(FakeGenerator([text]), FakeVerifier(score_of), request(1))
    (candidate,) = response.candidates
    assert [(step.text, step.score) for step in candidate.steps] == [
        ("good", 0.75),
        ("bad", 0.25),
        ("other\n\n# Answer\n\n42", 0.5),
    ]
    assert (candidate.score, candidate.first_error) == (0.75 * 0.25 * 0.5, 1)
    assert (candidate.text, candidate.tokens, candidate.seed) == (text, TOKENS_OF_A_SAMPLE, 1000)


async def test_tokens_are_counted_over_all_samples() -> None:
    response = await solve(FakeGenerator([GOOD, BAD]), FakeVerifier(score_of), request(2))
    usage = response.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (PROMPT_TOKENS, 2 * TOKENS_OF_A_SAMPLE)
    assert (usage.verifier_tokens, usage.verifier_tokens_computed) == (2 * TOKENS_OF_A_SOLUTION,) * 2


async def test_the_generator_is_asked_for_what_the_caller_asked() -> None:
    generator = FakeGenerator([GOOD])
    sampling = SolveSampling(temperature=1.25, top_p=0.5, max_tokens=33, seed=9)
    await solve(generator, FakeVerifier(), request(5, sampling=sampling))
    (asked,) = generator.requests
    assert (asked.problem, asked.n) == ("What is 6 times 7?", 5)
    assert SolveSampling(**asked.sampling.model_dump(exclude={"stop"})) == sampling


async def test_scoring_begins_before_sampling_ends() -> None:
    verifier = FakeVerifier(score_of)
    # The second sample comes only after the first has reached the verifier: without overlap this would never end.
    generator = FakeGenerator([GOOD, BAD], holds={1: verifier.began})
    response = await asyncio.wait_for(solve(generator, verifier, request(2)), timeout=5)
    assert response.usage.verifier_tokens == 2 * TOKENS_OF_A_SOLUTION


async def test_samples_are_scored_at_the_same_time_and_those_that_come_meanwhile_in_one_request() -> None:
    coming = [asyncio.Event() for _ in range(4)]
    texts = [solution("42", f"good {place}") for place in range(5)]
    generator = FakeGenerator(texts, holds=dict(zip(range(1, 5), coming, strict=True)))
    verifier = FakeVerifier(score_of, hold=asyncio.Event())
    solving = asyncio.create_task(solve(generator, verifier, request(5)))
    assert await eventually(lambda: len(verifier.requests) == 1)  # the first goes at once
    coming[0].set()
    assert await eventually(lambda: len(verifier.requests) == 2)  # and the second beside it
    for event in coming[1:]:
        event.set()
    assert await eventually(lambda: generator.delivered == 5)
    assert len(verifier.requests) == 2
    assert verifier.hold is not None
    verifier.hold.set()
    response = await solving
    assert [len(each.solutions) for each in verifier.requests] == [1, 1, 3]
    assert [given.text for each in verifier.requests for given in each.solutions] == texts
    assert [c.score is not None for c in response.candidates] == [True] * 5


async def test_a_request_for_scores_is_bounded() -> None:
    verifier = FakeVerifier(score_of)
    texts = [solution("42", f"good {place}") for place in range(100)]
    response = await solve(FakeGenerator(texts), verifier, request(100))
    assert max(len(each.solutions) for each in verifier.requests) <= 32
    assert all(c.score is not None for c in response.candidates)
    long = [solution("42", f"good {place} " + "x" * 200_000) for place in range(3)]
    verifier = FakeVerifier(score_of)
    await solve(FakeGenerator(long), verifier, request(3))
    assert [len(each.solutions) for each in verifier.requests] == [1, 1, 1]


async def test_of_samples_that_are_scored_together_one_that_cannot_be_keeps_its_error_to_itself() -> None:
    verifier = FakeVerifier(score_of, error_of=lambda text: ItemError(code="c", message="m") if "bad" in text else None)
    response = await solve(FakeGenerator([GOOD, BAD, OTHER]), verifier, request(3))
    assert [c.score for c in response.candidates] == [0.75, None, 0.5]


async def test_equal_texts_are_scored_once_and_all_vote() -> None:
    verifier = FakeVerifier(score_of)
    response = await solve(FakeGenerator([BAD, GOOD, BAD, BAD, BAD]), verifier, request(5))
    assert len(verifier.requests) == 2
    assert (response.answer, response.classes[0].votes, response.classes[0].weight) == ("41", 4, 1.0)
    assert [c.excluded for c in response.candidates] == [None, None, *["duplicate_of:0"] * 3]
    assert [c.score for c in response.candidates] == [0.25, 0.75, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_the_response_does_not_depend_on_the_order_of_arrival(strategy: Strategy) -> None:
    texts = [GOOD, BAD, GOOD, OTHER]
    responses = []
    for order in permutations(range(4)):
        response = await solve(FakeGenerator(texts, order=order), FakeVerifier(score_of), request(4, strategy))
        responses.append(response.model_dump(exclude={"id", "timings_ms"}))
    assert responses == [responses[0]] * len(responses)


async def _excluded(text: str, verifier: FakeVerifier, strategy: Strategy, cut: bool = False) -> SolveCandidate:
    generator = FakeGenerator([GOOD, text], finish_reasons={1: "length"} if cut else {})
    response = await solve(generator, verifier, request(2, strategy))
    assert response.classes[0].members == [0]
    assert response.margin == 1.0
    return response.candidates[1]


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize(
    ("text", "cut", "reason"),
    [
        pytest.param("I do not know.", False, "no_answer", id="no answer"),
        pytest.param("It may be", True, "truncated", id="cut before an answer"),
        pytest.param("The answer is 4", True, "truncated", id="cut within an answer"),
        pytest.param("", False, "no_answer", id="an empty sample"),
    ],
)
async def test_a_sample_without_an_answer_has_no_vote(text: str, cut: bool, reason: str, strategy: Strategy) -> None:
    candidate = await _excluded(text, FakeVerifier(score_of), strategy, cut)
    assert (candidate.excluded, candidate.answer) == (reason, None)


@pytest.mark.parametrize("strategy", [Strategy.WEIGHTED, Strategy.BEST_OF_N])
async def test_a_sample_that_the_verifier_cannot_score_has_no_vote(strategy: Strategy) -> None:
    fault = ItemError(code="non_finite", message="no probability")
    verifier = FakeVerifier(score_of, error_of=lambda text: fault if text.startswith("bad") else None)
    candidate = await _excluded(BAD, verifier, strategy)
    assert (candidate.excluded, candidate.score, candidate.answer) == ("not_scored", None, "41")
    assert [step.score for step in candidate.steps] == [None]


async def test_without_any_answer_the_response_says_so() -> None:
    response = await solve(FakeGenerator(["no idea"]), FakeVerifier(), request(2, reference="42"))
    assert (response.answer, response.solution, response.classes, response.margin) == (None, None, [], 0.0)
    assert response.correct is False


async def test_an_empty_sample_is_not_sent_to_the_verifier() -> None:
    verifier = FakeVerifier()
    await solve(FakeGenerator(["  \n\n "]), verifier, request(1))
    assert verifier.requests == []


@pytest.mark.parametrize(
    ("reference", "correct"),
    [
        pytest.param("42", True, id="the same"),
        pytest.param("$42.0$", True, id="equivalent"),
        pytest.param("41", False, id="the answer of a loser"),
        pytest.param(None, None, id="not asked"),
    ],
)
async def test_a_reference_is_compared_with_the_answer(reference: str | None, correct: bool | None) -> None:
    response = await solve(FakeGenerator([GOOD, BAD]), FakeVerifier(score_of), request(2, reference=reference))
    assert response.correct is correct


async def test_candidates_can_be_left_out_of_the_response() -> None:
    generator, verifier = FakeGenerator([GOOD, BAD]), FakeVerifier(score_of)
    brief = await solve(generator, verifier, request(2, include_candidates=False))
    assert brief.candidates == []
    assert (brief.answer, brief.classes[0].members, brief.usage.completion_tokens) == (
        "42",
        [0],
        2 * TOKENS_OF_A_SAMPLE,
    )


async def test_samples_are_counted_whether_or_not_the_response_lists_them() -> None:
    registry = CollectorRegistry()
    solver = make_solver(FakeGenerator([GOOD, BAD]), FakeVerifier(score_of), registry)
    await solver.solve(request(2, include_candidates=False))
    assert registry.get_sample_value("e2h_solve_candidates_total", {"part": "voted"}) == 2


async def test_a_majority_needs_no_verifier() -> None:
    verifier = FakeVerifier(failure=unreachable(), info_failure=unreachable())
    response = await solve(FakeGenerator([BAD, GOOD, GOOD]), verifier, request(3, Strategy.MAJORITY))
    assert (response.answer, response.model.verifier, response.aggregation) == ("42", None, None)
    assert (verifier.requests, response.degraded) == ([], None)


@pytest.mark.parametrize(
    ("kind", "aggregation"),
    [
        pytest.param("prm", Aggregation.OUTCOME, id="a prm has no outcome"),
        *(pytest.param("orm", how, id=f"an orm has no {how}") for how in Aggregation if how != Aggregation.OUTCOME),
    ],
)
async def test_an_aggregation_that_the_verifier_cannot_give_is_refused_before_sampling(
    kind: VerifierKind, aggregation: Aggregation
) -> None:
    generator = FakeGenerator([GOOD])
    with pytest.raises(InvalidRequest) as caught:
        await solve(generator, FakeVerifier(kind=kind), request(2, aggregation=aggregation))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "aggregation")
    assert generator.requests == []


@pytest.mark.parametrize(
    ("kind", "aggregation", "score"),
    [
        pytest.param("prm", Aggregation.MIN, 0.25, id="min of a prm"),
        pytest.param("prm", Aggregation.LAST, 0.5, id="last of a prm"),
        pytest.param("prm", None, 0.75 * 0.25 * 0.5, id="the verifier's default"),
        pytest.param("oprm", Aggregation.OUTCOME, 0.5, id="outcome of an oprm"),
        pytest.param("oprm", Aggregation.MEAN, 0.5, id="mean of an oprm"),
        pytest.param("orm", Aggregation.OUTCOME, 0.5, id="outcome of an orm"),
    ],
)
async def test_the_aggregation_makes_the_score(
    kind: VerifierKind, aggregation: Aggregation | None, score: float
) -> None:
    generator = FakeGenerator([solution("42", "good", "bad", "other")])
    response = await solve(generator, FakeVerifier(score_of, kind=kind), request(1, aggregation=aggregation))
    assert response.candidates[0].score == pytest.approx(score)
    assert response.aggregation is (aggregation or Aggregation.PROD)


async def test_the_steps_of_an_outcome_model_are_shown_without_scores() -> None:
    verifier = FakeVerifier(score_of, kind="orm", default_aggregation=Aggregation.OUTCOME)
    response = await solve(FakeGenerator([GOOD]), verifier, request(1))
    (candidate,) = response.candidates
    assert ([step.score for step in candidate.steps], candidate.outcome) == ([None], 0.75)


TROUBLES = [NotReady("loading"), unreachable(), UpstreamContract("nonsense")]


@pytest.mark.parametrize("failure", [*TROUBLES, Overloaded("full")], ids=lambda error: error.code)
async def test_a_generator_that_dies_midway_leaves_a_partial_answer(failure: E2HError) -> None:
    generator = FakeGenerator([BAD, GOOD], failure=failure, fail_after=3)
    response = await solve(generator, FakeVerifier(score_of), request(8))
    assert (response.partial, response.answer, len(response.candidates)) == (True, "42", 3)
    assert response.usage.completion_tokens == 3 * TOKENS_OF_A_SAMPLE


@pytest.mark.parametrize(
    "failure", [*TROUBLES, Overloaded("full"), ContextLengthExceeded("long")], ids=lambda error: error.code
)
async def test_a_generator_that_fails_at_once_fails_the_solve(failure: E2HError) -> None:
    with pytest.raises(type(failure)):
        await solve(FakeGenerator([GOOD], failure=failure), FakeVerifier(), request(2))


async def test_a_generator_that_ends_without_its_last_event_leaves_a_partial_answer() -> None:
    generator = FakeGenerator([GOOD], order=[0, 1], ends=False)
    response = await solve(generator, FakeVerifier(score_of), request(8))
    assert (response.partial, len(response.candidates)) == (True, 2)


VERIFIER_TROUBLES = [*TROUBLES, Overloaded("full")]


@pytest.mark.parametrize("failure", VERIFIER_TROUBLES, ids=lambda error: error.code)
async def test_a_verifier_that_fails_fails_the_solve(failure: E2HError) -> None:
    generator = FakeGenerator([GOOD, BAD, OTHER])
    with pytest.raises(type(failure)):
        await solve(generator, FakeVerifier(failure=failure), request(3))


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("failure", VERIFIER_TROUBLES, ids=lambda error: error.code)
async def test_or_a_verifier_that_fails_leaves_a_majority_vote_where_asked(failure: E2HError, after: int) -> None:
    generator = FakeGenerator([GOOD, solution("41", "bad 1"), solution("41", "bad 2"), solution("41", "bad 3")])
    verifier = FakeVerifier(score_of, failure=failure, fail_after=after)
    response = await solve(generator, verifier, request(4, on_verifier_failure="majority"))
    assert (response.degraded, response.answer, response.classes[0].votes) == ("majority", "41", 3)
    assert response.classes[0].weight == 3.0


async def test_a_verifier_that_cannot_be_met_leaves_a_majority_vote_where_asked() -> None:
    verifier = FakeVerifier(info_failure=unreachable())
    response = await solve(FakeGenerator([BAD, BAD, GOOD]), verifier, request(3, on_verifier_failure="majority"))
    assert (response.degraded, response.answer, response.model.verifier) == ("majority", "41", None)
    assert verifier.requests == []


async def test_a_verifier_that_cannot_be_met_fails_the_solve_before_sampling() -> None:
    generator = FakeGenerator([GOOD])
    with pytest.raises(UpstreamUnavailable):
        await solve(generator, FakeVerifier(info_failure=unreachable()), request(2))
    assert generator.requests == []


async def test_a_failing_verifier_stops_the_sampling() -> None:
    generator = FakeGenerator([GOOD, BAD], order=range(100))
    with pytest.raises(UpstreamUnavailable):
        await solve(generator, FakeVerifier(failure=unreachable()), request(100))
    assert generator.delivered < 100


async def test_a_wrong_number_of_step_scores_is_a_broken_contract() -> None:
    with pytest.raises(UpstreamContract):
        await solve(FakeGenerator([GOOD]), FakeVerifier(extra_steps=1), request(1))


async def test_a_wrong_number_of_step_scores_is_a_verifier_failure_like_any_other() -> None:
    verifier = FakeVerifier(extra_steps=1)
    response = await solve(FakeGenerator([GOOD, GOOD]), verifier, request(2, on_verifier_failure="majority"))
    assert (response.degraded, response.answer) == ("majority", "42")


async def test_a_batch_that_fails_in_this_process_is_a_verifier_failure_like_any_other() -> None:
    verifier = FakeVerifier(failure=InternalError("the batch failed"))
    response = await solve(FakeGenerator([GOOD, GOOD]), verifier, request(2, on_verifier_failure="majority"))
    assert (response.degraded, response.answer) == ("majority", "42")


async def test_a_mistake_of_the_caller_is_not_forgiven_as_a_verifier_failure() -> None:
    verifier = FakeVerifier(failure=InvalidRequest("no"))
    with pytest.raises(InvalidRequest):
        await solve(FakeGenerator([GOOD]), verifier, request(1, on_verifier_failure="majority"))


async def test_cancelling_a_solve_stops_samples_and_scores() -> None:
    generator = FakeGenerator([GOOD, BAD, OTHER], holds={2: asyncio.Event()})
    verifier = FakeVerifier(score_of, hold=asyncio.Event())
    solving = asyncio.create_task(solve(generator, verifier, request(3)))
    assert await eventually(lambda: len(verifier.requests) == 2)
    solving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await solving
    assert (generator.cancelled, verifier.cancelled) == (1, 2)


async def test_a_failed_score_stops_samples_and_the_other_scores() -> None:
    verifier = FakeVerifier(score_of, hold=asyncio.Event(), failure=unreachable(), fail_after=1)
    generator = FakeGenerator([GOOD, BAD, OTHER])
    with pytest.raises(UpstreamUnavailable):
        await solve(generator, verifier, request(3))
    assert verifier.cancelled == 1


async def followed(generator: FakeGenerator, verifier: FakeVerifier, asked: SolveRequest) -> list[SolveEvent]:
    async with aclosing(make_solver(generator, verifier).events(asked)) as events:
        return [event async for event in events]


async def test_the_events_tell_every_sample_and_every_score_and_end_with_the_answer() -> None:
    events = await followed(FakeGenerator([GOOD, BAD]), FakeVerifier(score_of), request(2))
    assert sorted(e.index for e in events if isinstance(e, CandidateEvent)) == [0, 1]
    assert {e.index: e.score for e in events if isinstance(e, ScoreEvent)} == {0: 0.75, 1: 0.25}
    assert [type(e) for e in events].index(SolveResponse) == len(events) - 1
    assert not any(isinstance(e, VoteEvent) for e in events)  # nobody asked for the leader on the way


async def test_twins_of_a_scored_text_are_told_their_score_each() -> None:
    events = await followed(FakeGenerator([BAD, GOOD, BAD, BAD]), FakeVerifier(score_of), request(4))
    assert {e.index: e.score for e in events if isinstance(e, ScoreEvent)} == {0: 0.25, 1: 0.75, 2: 0.25, 3: 0.25}


async def test_a_solution_that_cannot_be_scored_is_told_with_the_reason() -> None:
    fault = ItemError(code="non_finite", message="no probability")
    events = await followed(FakeGenerator([GOOD]), FakeVerifier(error_of=lambda text: fault), request(1))
    (told,) = [e for e in events if isinstance(e, ScoreEvent)]
    assert (told.score, told.error, [s.score for s in told.steps]) == (None, "non_finite", [None])


@pytest.mark.parametrize("strategy", [Strategy.WEIGHTED, Strategy.MAJORITY, Strategy.BEST_OF_N])
async def test_a_stream_tells_the_leader_on_the_way_and_the_last_vote_is_the_answer(strategy: Strategy) -> None:
    generator = FakeGenerator([BAD, GOOD, GOOD], order=[0, 1, 2])
    events = await followed(generator, FakeVerifier(score_of), request(3, strategy, stream=True))
    votes = [e for e in events if isinstance(e, VoteEvent)]
    response = events[-1]
    assert isinstance(response, SolveResponse)
    assert [v.n for v in votes] == sorted(v.n for v in votes)
    assert (votes[-1].answer, votes[-1].margin, votes[-1].n) == (response.answer, response.margin, 3)


async def test_streamed_or_not_the_answer_is_the_same() -> None:
    answers = [
        await solve(FakeGenerator([GOOD, BAD, OTHER]), FakeVerifier(score_of), request(6, stream=stream))
        for stream in (False, True)
    ]
    plain, streamed = (a.model_dump(exclude={"id", "timings_ms"}) for a in answers)
    assert plain == streamed


async def test_leaving_the_events_stops_samples_and_scores() -> None:
    generator = FakeGenerator([GOOD, BAD], holds={1: asyncio.Event()})
    verifier = FakeVerifier(score_of, hold=asyncio.Event())
    async with aclosing(make_solver(generator, verifier).events(request(2))) as events:
        assert isinstance(await anext(events), CandidateEvent)
        await verifier.began.wait()
    assert (generator.cancelled, verifier.cancelled) == (1, 1)


# --- early stop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [True, "lossless", "confident"])
async def test_a_decided_vote_ends_the_sampling(rule: bool | str) -> None:
    never = asyncio.Event()
    generator = FakeGenerator([GOOD], holds=dict.fromkeys(range(6, 10), never))
    perfect = FakeVerifier(lambda step: 1.0)
    response = await asyncio.wait_for(solve(generator, perfect, request(10, early_stop=rule)), timeout=5)
    assert (response.answer, response.stopped_early, response.partial) == ("42", True, False)
    assert response.used == len(response.candidates) <= 6
    assert generator.cancelled == 1


async def test_a_decided_vote_drops_the_scores_that_are_still_computed() -> None:
    # Six of ten say the same with score 1; the others have come and wait for a verifier that never answers.
    slow = FakeVerifier(lambda step: 1.0)
    never = asyncio.Event()

    class OneIsNeverScored(FakeVerifier):
        async def score(self, asked: ScoreRequest) -> tuple[ScoreResponse, ScoreTimings]:
            if "other" in (asked.solutions[0].text or ""):
                slow.hold = never
                return await FakeVerifier.score(slow, asked)
            return await super().score(asked)

    generator = FakeGenerator([OTHER, *[GOOD] * 9])
    response = await asyncio.wait_for(
        solve(generator, OneIsNeverScored(lambda step: 1.0), request(10, early_stop=True)), timeout=5
    )
    assert (response.answer, response.stopped_early, slow.cancelled) == ("42", True, 1)
    assert response.candidates[0].excluded == "not_scored"
    assert response.used < len(response.candidates)


async def test_an_early_stop_of_a_majority_needs_no_scores() -> None:
    generator = FakeGenerator([GOOD], holds={3: asyncio.Event()})
    asked = request(4, Strategy.MAJORITY, early_stop=True)
    response = await asyncio.wait_for(solve(generator, FakeVerifier(), asked), timeout=5)
    # Two votes of four and the lowest index are enough: a tie would still be won.
    assert (response.answer, response.stopped_early) == ("42", True)
    assert response.used in (2, 3)


async def test_a_vote_that_is_decided_when_the_last_sample_has_come_saved_nothing() -> None:
    last = asyncio.Event()

    class SlowGrader(InlineGrader):
        """While it compares the answer that decides the vote, the last sample comes."""

        async def keys(self, answers: Sequence[str]) -> list[str]:
            if "40" in answers:
                last.set()
                for _ in range(50):
                    await asyncio.sleep(0)
            return await super().keys(answers)

    # 3 : 1 : 1 of 6; the last has the lowest index, so that a tie would be lost.
    generator = FakeGenerator([*[GOOD] * 4, BAD, OTHER], order=(1, 2, 3, 4, 5, 0), holds={0: last})
    solver = Solver(generator, FakeVerifier(), SlowGrader(), SolveMetrics(CollectorRegistry()))
    response = await solver.solve(request(6, Strategy.MAJORITY, early_stop=True))
    assert (response.answer, response.used, response.stopped_early) == ("42", 6, False)


async def test_without_early_stop_every_sample_is_drawn() -> None:
    response = await solve(FakeGenerator([GOOD]), FakeVerifier(lambda step: 1.0), request(10))
    assert (response.stopped_early, response.used, len(response.candidates)) == (False, 10, 10)


async def test_a_vote_that_nothing_decides_is_not_stopped() -> None:
    generator = FakeGenerator([GOOD, BAD])
    response = await solve(generator, FakeVerifier(), request(6, early_stop="lossless"))
    assert (response.stopped_early, response.used) == (False, 6)


@pytest.mark.parametrize("strategy", [Strategy.WEIGHTED, Strategy.MAJORITY])
async def test_a_lossless_stop_gives_the_answer_of_the_full_run_for_any_order(strategy: Strategy) -> None:
    sure = solution("42", "sure")
    texts = [sure, sure + " ", sure + "  ", BAD, OTHER]
    full = await solve(FakeGenerator(texts), FakeVerifier(sure_of), request(5, strategy))
    stopped = 0
    for order in permutations(range(5)):
        generator = FakeGenerator(texts, order=order)
        response = await solve(generator, FakeVerifier(sure_of), request(5, strategy, early_stop=True))
        assert response.answer == full.answer == "42"
        stopped += response.stopped_early
    assert stopped > 40


def sure_of(step: str) -> float:
    return 1.0 if step.startswith("sure") else score_of(step)


async def test_the_tokens_of_the_prompt_are_told_though_the_last_event_never_comes() -> None:
    generator = FakeGenerator([GOOD])
    response = await solve(generator, FakeVerifier(lambda step: 1.0), request(10, early_stop=True))
    assert response.stopped_early
    assert response.usage.prompt_tokens == PROMPT_TOKENS


async def test_an_early_stop_is_counted() -> None:
    registry = CollectorRegistry()
    solver = make_solver(FakeGenerator([GOOD]), FakeVerifier(lambda step: 1.0), registry)
    response = await solver.solve(request(10, early_stop=True))
    saved = registry.get_sample_value("e2h_solve_samples_saved_total", {"strategy": "weighted"})
    assert saved == 10 - response.used > 0


async def test_where_the_verifier_could_score_nothing_the_majority_answers_if_asked() -> None:
    fault = ItemError(code="non_finite", message="no probability")
    verifier = FakeVerifier(error_of=lambda text: fault)
    generator = FakeGenerator([GOOD, BAD, BAD])
    strict = await solve(generator, verifier, request(3))
    assert (strict.answer, strict.degraded) == (None, None)
    lenient = await solve(generator, verifier, request(3, on_verifier_failure="majority"))
    assert (lenient.answer, lenient.degraded) == ("41", "majority")


async def test_the_turns_before_the_problem_reach_the_generator() -> None:
    generator = FakeGenerator([GOOD])
    context = [Message(role="system", content="Be brief."), Message(role="assistant", content="Ask.")]
    await make_solver(generator, FakeVerifier()).solve(request(1), context)
    assert generator.requests[0].messages == context

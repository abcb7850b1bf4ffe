"""A search over the ports, with a scripted tree of steps: what it finds, what it draws, how it ends before its end."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.core.aggregation import Aggregation
from services.core.contracts import (
    CandidateEvent,
    ItemError,
    Message,
    ScoreEvent,
    SolveCandidate,
    SolveEvent,
    SolveRequest,
    SolveResponse,
    VerifierKind,
    VoteEvent,
)
from services.core.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    E2HError,
    InvalidRequest,
    NotReady,
    Overloaded,
    UpstreamUnavailable,
)
from services.core.strategies import SolveStrategy
from services.orchestrator.metrics import SolveMetrics
from services.orchestrator.solver import Solver
from services.runtime import context
from tests.fakes import (
    PROMPT_TOKENS,
    TOKENS_OF_A_SAMPLE,
    FakeVerifier,
    InlineGrader,
    TreeGenerator,
    unreachable,
)
from tests.serving import eventually

pytestmark = pytest.mark.timeout(20)

BEAM, DVTS = SolveStrategy.BEAM, SolveStrategy.DVTS
HEADER = "# Answer\n\n"
# The first step that is drawn most often looks best, and leads astray: only "right" leads to 42.
TREE = {
    "": ["tempting\n\n", "tempting\n\n", "right\n\n"],
    "tempting\n\n": ["wrong\n\n"],
    "right\n\n": ["good\n\n", "bad\n\n", "good\n\n"],
    "right\n\ngood\n\n": [HEADER],
    "right\n\nbad\n\n": [HEADER],
    "tempting\n\nwrong\n\n": [HEADER],
    "right\n\ngood\n\n# Answer\n\n": ["42"],
    "right\n\nbad\n\n# Answer\n\n": ["40"],
    "tempting\n\nwrong\n\n# Answer\n\n": ["41"],
}
SCORES = {"tempting": 0.875, "right": 0.75, "wrong": 0.125, "good": 0.75, "bad": 0.25}


def score_of(step: str) -> float:
    return SCORES[step.split("\n")[0]]


def request(strategy: SolveStrategy = BEAM, width: int = 2, expand: int = 3, **fields: Any) -> SolveRequest:
    search = {"beam_width": width, "expand": expand, "max_steps": fields.pop("max_steps", 40)}
    sampling = {"seed": 7, **fields.pop("sampling", {})}
    whole = {"problem": "What is 6 times 7?", "strategy": strategy, "search": search, "sampling": sampling, **fields}
    return SolveRequest.model_validate(whole)


def solver_of(
    generator: TreeGenerator, verifier: FakeVerifier | None = None, registry: CollectorRegistry | None = None
) -> Solver:
    metrics = SolveMetrics(registry or CollectorRegistry())
    return Solver(generator, verifier or FakeVerifier(score_of), InlineGrader(), metrics)


async def solve(
    asked: SolveRequest,
    tree: TreeGenerator | Mapping[str, Sequence[str]] = TREE,
    verifier: FakeVerifier | None = None,
) -> SolveResponse:
    generator = tree if isinstance(tree, TreeGenerator) else TreeGenerator(tree)
    return await solver_of(generator, verifier).solve(asked)


def shown(candidate: SolveCandidate) -> tuple[str, str | None, float | None, str | None]:
    return candidate.text.replace("\n\n", "|"), candidate.answer, candidate.score, candidate.excluded


# --- what it finds -------------------------------------------------------------------------------------------------


async def test_a_beam_finds_what_looks_worse_at_first_and_a_greedy_search_does_not() -> None:
    greedy, wide = await solve(request(width=1)), await solve(request(width=2))
    assert (greedy.answer, wide.answer) == ("41", "42")


async def test_a_beam_answers_with_its_best_solution_and_all_that_it_finished() -> None:
    response = await solve(request())
    assert response.solution == "right\n\ngood\n\n# Answer\n\n42"
    assert (response.strategy, response.aggregation) == (BEAM, Aggregation.PROD)
    best = [("right|good|# Answer|42", "42", 0.5625, None)]
    twins = [("right|good|# Answer|42", "42", 0.5625, "duplicate_of:0")] * 2
    second = [
        ("right|bad|# Answer|40", "40", 0.1875, None),
        *[("right|bad|# Answer|40", "40", 0.1875, "duplicate_of:3")] * 2,
    ]
    assert [shown(c) for c in response.candidates] == best + twins + second
    assert [c.index for c in response.candidates] == list(range(6))
    assert not response.partial


async def test_a_solution_shows_its_steps_with_scores_and_the_header_is_none() -> None:
    candidate = (await solve(request())).candidates[0]
    assert [(s.text, s.score) for s in candidate.steps] == [("right", 0.75), ("good\n\n# Answer\n\n42", 0.75)]
    assert (candidate.tokens, candidate.finish_reason) == (4 * TOKENS_OF_A_SAMPLE, "stop")


async def test_subtrees_are_independent_and_vote_by_weight() -> None:
    # Two trees that draw the same text vote twice for it.
    response = await solve(request(DVTS, width=2, expand=1), {**TREE, "": ["right\n\n"]})
    assert [(c.answer, c.votes, c.weight) for c in response.classes] == [("42", 2, 1.125)]
    assert [c.excluded for c in response.candidates] == [None, "duplicate_of:0"]
    # Where "tempting" is drawn too it looks better, in every tree.
    narrow = await solve(request(DVTS, width=2))
    assert {c.answer for c in narrow.classes} == {"41"}


async def test_the_default_shape_is_four_by_four() -> None:
    generator = TreeGenerator(TREE)
    await solve(SolveRequest(problem="p", strategy=BEAM), generator)
    assert [r.n for r in generator.requests if not r.prefix] == [16]
    generator = TreeGenerator(TREE)
    await solve(SolveRequest(problem="p", strategy=DVTS), generator)
    assert [r.n for r in generator.requests if not r.prefix] == [4] * 4


# --- what it asks for ----------------------------------------------------------------------------------------------


async def test_each_step_continues_what_goes_on_and_stops_at_a_blank_line() -> None:
    generator = TreeGenerator(TREE)
    await solve(request(), generator)
    asked = [(r.prefix.replace("\n\n", "|"), r.n) for r in generator.requests]
    assert sorted(asked) == sorted(
        [
            *[("", 6), ("tempting|", 3), ("right|", 3)],
            *[("right|good|", 3), ("right|bad|", 3)],
            *[("right|good|# Answer|", 3), ("right|bad|# Answer|", 3)],
        ]
    )
    assert all(r.sampling.stop == ["\n\n"] for r in generator.requests)


async def test_the_conversation_before_the_problem_reaches_every_step() -> None:
    generator, turns = TreeGenerator(TREE), [Message(role="system", content="Be brief.")]
    await solver_of(generator).solve(request(), turns)
    assert all(r.messages == turns for r in generator.requests)


async def test_tokens_are_bounded_for_the_whole_solution() -> None:
    generator = TreeGenerator(TREE)
    response = await solve(request(sampling={"max_tokens": 3 * TOKENS_OF_A_SAMPLE}), generator)
    bounds = {r.prefix: r.sampling.max_tokens for r in generator.requests}
    assert (bounds[""], bounds["right\n\n"], bounds["right\n\ngood\n\n"]) == (21, 14, 7)
    # The header took the last ones: no room for the answer behind it.
    assert {(c.finish_reason, c.excluded) for c in response.candidates} <= {
        ("length", "truncated"),
        ("length", "duplicate_of:0"),
    }
    assert response.answer is None


async def test_a_text_is_scored_once_and_a_header_never() -> None:
    verifier = FakeVerifier(score_of)
    await solve(request(), verifier=verifier)
    texts = [s.text or "" for r in verifier.requests for s in r.solutions]
    assert len(texts) == len(set(texts))
    assert not [text for text in texts if text.endswith("# Answer")]


async def test_usage_counts_all_that_was_drawn_kept_or_not() -> None:
    generator, verifier = TreeGenerator(TREE), FakeVerifier(score_of)
    response = await solve(request(), generator, verifier)
    assert response.usage.completion_tokens == generator.delivered * TOKENS_OF_A_SAMPLE
    assert response.usage.prompt_tokens == len(generator.requests) * PROMPT_TOKENS
    assert response.usage.verifier_tokens == 13 * sum(len(r.solutions) for r in verifier.requests)


# --- repeatability -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [BEAM, DVTS])
async def test_the_same_seed_gives_the_same_evidence_whatever_comes_first(strategy: SolveStrategy) -> None:
    forwards, backwards = [await solve(request(strategy), TreeGenerator(TREE, backwards=b)) for b in (False, True)]
    assert forwards.candidates == backwards.candidates
    other = await solve(request(strategy, sampling={"seed": 8}))
    assert [c.seed for c in other.candidates] != [c.seed for c in forwards.candidates]


async def test_every_request_of_a_search_has_a_seed_of_its_own() -> None:
    generator = TreeGenerator(TREE)
    await solve(request(DVTS, width=3, sampling={"seed": None}), generator)
    seeds = [r.sampling.seed for r in generator.requests]
    assert None not in seeds
    assert len(set(seeds)) == len(seeds)


# --- the ends of a search ------------------------------------------------------------------------------------------


async def test_at_the_last_step_what_is_unfinished_is_listed_and_does_not_vote() -> None:
    response = await solve(request(max_steps=2))
    assert response.answer is None
    assert {(shown(c)[0], c.finish_reason, c.excluded) for c in response.candidates} == {
        ("right|good", "length", "truncated"),
        ("right|bad", "length", "truncated"),
    }
    assert not response.partial


async def test_at_the_end_of_the_context_the_others_go_on() -> None:
    full = {"right\n\n": ContextLengthExceeded("too long", param="problem")}
    response = await solve(request(), TreeGenerator(TREE, failures=full))
    assert response.answer == "41"
    assert ("right", "length", "truncated") in {(c.text, c.finish_reason, c.excluded) for c in response.candidates}
    assert not response.partial


async def test_a_step_that_was_cut_is_the_end_of_its_solution() -> None:
    response = await solve(
        request(width=1, expand=1),
        TreeGenerator({"": ["right\n\n"], "right\n\n": ["goo"]}, cut=["goo"]),
        FakeVerifier(lambda step: 0.5),
    )
    assert [(shown(c)[0], c.finish_reason, c.excluded) for c in response.candidates] == [
        ("right|goo", "length", "truncated")
    ]


async def test_a_solution_without_an_answer_is_listed_as_such() -> None:
    response = await solve(request(width=1), {"": ["right"]})
    assert {c.excluded for c in response.candidates} == {
        "no_answer",
    }


async def test_an_empty_first_step_is_an_end_and_no_fault() -> None:
    response = await solve(request(width=1, expand=1), {"": ["\n\n"]})
    assert [(c.text, c.steps, c.excluded) for c in response.candidates] == [("", [], "no_answer")]


async def test_a_boxed_answer_needs_no_header() -> None:
    tree = {"": ["right\n\n"], "right\n\n": ["It is \\boxed{42}"]}
    response = await solve(request(width=1), tree, FakeVerifier(lambda step: 0.5))
    assert response.answer == "42"


# --- trouble -------------------------------------------------------------------------------------------------------


async def test_a_problem_that_the_generator_refuses_is_refused() -> None:
    long = TreeGenerator(TREE, failures={"": ContextLengthExceeded("too long", param="problem")})
    with pytest.raises(ContextLengthExceeded):
        await solve(request(), long)


async def test_a_generator_that_continues_nothing_cannot_search() -> None:
    chat = InvalidRequest("a chat server cannot continue", param="prefix", code="unsupported_parameter")
    with pytest.raises(InvalidRequest) as caught:
        await solve(request(), TreeGenerator(TREE, failures={"right\n\n": chat}))
    assert (caught.value.param, caught.value.code) == ("strategy", "unsupported_parameter")


@pytest.mark.parametrize("error", [NotReady("x"), Overloaded("x"), unreachable()], ids=lambda error: error.code)
async def test_a_generator_that_is_lost_before_anything_is_finished_is_told(error: E2HError) -> None:
    with pytest.raises(type(error)):
        await solve(request(), TreeGenerator(TREE, failures={"tempting\n\n": error}))


async def test_a_generator_that_is_lost_midway_leaves_what_is_finished() -> None:
    tree = {**TREE, "right\n\n": ["good\n\n# Answer\n\n42", "bad\n\n"]}
    lost = TreeGenerator(tree, failures={"right\n\nbad\n\n": unreachable()})
    response = await solve(request(width=4), lost)
    assert (response.answer, response.partial) == ("42", True)
    left = {(shown(c)[0], c.finish_reason, c.excluded) for c in response.candidates if c.finish_reason != "stop"}
    assert ("right|bad", "cancelled", "truncated") in left


async def test_the_verifier_may_be_asked_for_steps_only() -> None:
    kind: VerifierKind = "orm"
    verifier = FakeVerifier(score_of, kind=kind, default_aggregation=Aggregation.OUTCOME)
    generator = TreeGenerator(TREE)
    with pytest.raises(InvalidRequest) as caught:
        await solve(request(), generator, verifier)
    assert (caught.value.param, caught.value.code) == ("strategy", "unsupported_parameter")
    assert generator.requests == []


async def test_a_default_of_whole_solutions_wants_another_to_be_named() -> None:
    verifier = FakeVerifier(score_of, kind="oprm", default_aggregation=Aggregation.OUTCOME)
    with pytest.raises(InvalidRequest) as caught:
        await solve(request(), verifier=verifier)
    assert caught.value.param == "aggregation"
    assert (await solve(request(aggregation=Aggregation.MIN), verifier=verifier)).answer == "42"


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_verifier_that_fails_fails_the_search(after: int) -> None:
    with pytest.raises(UpstreamUnavailable):
        await solve(request(), verifier=FakeVerifier(score_of, failure=unreachable(), fail_after=after))


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("strategy", [BEAM, DVTS])
async def test_a_verifier_that_fails_is_forgiven_on_request(strategy: SolveStrategy, after: int) -> None:
    verifier = FakeVerifier(score_of, failure=unreachable(), fail_after=after)
    response = await solve(request(strategy, on_verifier_failure="majority"), verifier=verifier)
    assert response.degraded == "majority"
    assert response.answer in ("41", "42")
    assert response.classes[0].weight == response.classes[0].votes


async def test_without_a_verifier_from_the_start_the_search_goes_on_without_scores() -> None:
    verifier = FakeVerifier(score_of, info_failure=unreachable())
    response = await solve(request(on_verifier_failure="majority"), verifier=verifier)
    assert (response.degraded, response.model.verifier) == ("majority", None)
    assert response.answer is not None
    assert verifier.requests == []


def not_good(text: str) -> ItemError | None:
    return ItemError(code="context_length_exceeded", message="too long") if "good" in text else None


async def test_what_the_verifier_cannot_read_goes_nowhere() -> None:
    response = await solve(request(), verifier=FakeVerifier(score_of, error_of=not_good))
    assert response.answer == "40"
    assert ("right|good", None, None, "truncated") in [shown(c) for c in response.candidates]


@pytest.mark.parametrize(("on_failure", "answer"), [("fail", None), ("majority", "41")])
async def test_a_verifier_that_scores_nothing_is_a_failed_one(on_failure: str, answer: str | None) -> None:
    nothing = ItemError(code="non_finite", message="no probability")
    verifier = FakeVerifier(score_of, error_of=lambda text: nothing)
    response = await solve(request(on_verifier_failure=on_failure), verifier=verifier)
    assert (response.answer, response.degraded) == (answer, "majority" if answer else None)


async def test_a_verifier_with_a_wrong_number_of_scores_is_outside_of_its_contract() -> None:
    with pytest.raises(E2HError, match="wrong number of step scores"):
        await solve(request(), verifier=FakeVerifier(score_of, extra_steps=1))


# --- time and cancellation -----------------------------------------------------------------------------------------


async def in_time(seconds: float, asked: SolveRequest, generator: TreeGenerator) -> SolveResponse:
    async def limited() -> SolveResponse:
        context.set_budget(seconds)
        return await solve(asked, generator)

    return await asyncio.create_task(limited())


async def test_when_the_time_ends_the_finished_solutions_answer() -> None:
    tree = {**TREE, "right\n\n": ["good\n\n# Answer\n\n42", "bad\n\n"]}
    generator = TreeGenerator(tree, holds={"right\n\nbad\n\n": asyncio.Event()})
    response = await in_time(1.0, request(width=4), generator)
    assert (response.answer, response.partial) == ("42", True)
    assert ("right|bad", "cancelled") in {(shown(c)[0], c.finish_reason) for c in response.candidates}
    assert generator.cancelled == 1


async def test_when_the_time_ends_while_the_first_step_is_scored_nothing_answers() -> None:
    tree = {"": ["right\n\ngood\n\n# Answer\n\n42", "tempting\n\n"], "tempting\n\n": ["wrong\n\n# Answer\n\n41"]}
    hold = asyncio.Event()
    verifier = FakeVerifier(score_of, hold=hold)

    async def limited() -> SolveResponse:
        context.set_budget(0.5)
        return await solve(request(), tree, verifier)

    with pytest.raises(DeadlineExceeded):
        await asyncio.create_task(limited())
    assert verifier.cancelled == 1


async def test_when_the_time_ends_before_anything_is_finished_that_is_told() -> None:
    with pytest.raises(DeadlineExceeded):
        await in_time(0.5, request(), TreeGenerator(TREE, holds={"right\n\n": asyncio.Event()}))


async def test_a_caller_who_leaves_stops_what_is_drawn() -> None:
    generator = TreeGenerator(TREE, holds={"right\n\n": asyncio.Event(), "tempting\n\n": asyncio.Event()})
    solving = asyncio.create_task(solve(request(), generator))
    assert await eventually(lambda: len(generator.requests) == 3)
    solving.cancel()
    await asyncio.gather(solving, return_exceptions=True)
    assert generator.cancelled == 2


async def test_a_caller_who_leaves_stops_what_is_scored() -> None:
    verifier = FakeVerifier(score_of, hold=asyncio.Event())
    solving = asyncio.create_task(solve(request(), verifier=verifier))
    await verifier.began.wait()
    solving.cancel()
    await asyncio.gather(solving, return_exceptions=True)
    assert verifier.cancelled == 1


# --- events and metrics --------------------------------------------------------------------------------------------


async def test_a_stream_tells_each_solution_when_it_is_finished_its_score_and_the_leader() -> None:
    told: list[SolveEvent] = []
    async with aclosing(solver_of(TreeGenerator(TREE)).events(request(stream=True))) as events:
        async for event in events:
            told.append(event)
    *before, result = told
    assert isinstance(result, SolveResponse)
    assert [e.index for e in before if isinstance(e, CandidateEvent)] == [c.index for c in result.candidates]
    assert sorted(e.index for e in before if isinstance(e, ScoreEvent)) == [c.index for c in result.candidates]
    votes = [e for e in before if isinstance(e, VoteEvent)]
    assert votes[-1].answer == result.answer == "42"


async def test_levels_and_fates_are_counted() -> None:
    registry = CollectorRegistry()
    await solver_of(TreeGenerator(TREE), registry=registry).solve(request())
    page = generate_latest(registry).decode()
    assert 'e2h_search_levels_sum{strategy="beam"} 3.0' in page
    found = {
        fate: registry.get_sample_value("e2h_search_continuations_total", {"strategy": "beam", "fate": fate})
        for fate in ("kept", "finished", "cut", "duplicate", "pruned")
    }
    # Drawn: 6, then 3 + 3, then 3 + 3 with their answers.
    assert found == {"kept": 4.0, "finished": 2.0, "cut": 0.0, "duplicate": 4.0 + 3.0 + 4.0, "pruned": 1.0}

"""The workloads: seeded, of the shapes they say, sharing what they say."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.workload import SHAPES, Problem, Workload, build, shared_prefix, unique_tokens
from services.verifier.families.base import Encoded

VOCABULARY = 1000
names = pytest.mark.parametrize("name", list(SHAPES))


def _sequences(workload: Workload) -> list[Encoded]:
    return [e for problem in workload.problems for level in problem.levels for e in level]


@names
def test_the_same_arguments_give_the_same_workload_and_another_seed_another(name: str) -> None:
    assert build(name, 1, VOCABULARY, seed=3) == build(name, 1, VOCABULARY, seed=3)
    assert build(name, 1, VOCABULARY, seed=3) != build(name, 1, VOCABULARY, seed=4)


@names
def test_lengths_do_not_depend_on_the_vocabulary(name: str) -> None:
    few, many = (_sequences(build(name, 1, size)) for size in (VOCABULARY, 50 * VOCABULARY))
    assert [(len(e.ids), e.rows) for e in few] == [(len(e.ids), e.rows) for e in many]


@names
def test_every_level_has_n_sequences_with_rows_inside_and_the_last_at_the_end(name: str) -> None:
    workload = build(name, 2, VOCABULARY)
    shape = SHAPES[name]
    assert [[len(level) for level in p.levels] for p in workload.problems] == [[shape.n] * shape.levels] * 2
    for encoded in _sequences(workload):
        assert shape.prompt <= encoded.step_rows[0] < len(encoded.ids)
        assert all(a < b for a, b in pairwise(encoded.step_rows))
        assert encoded.rows[-1] == len(encoded.ids) - 1
        assert all(0 < token < VOCABULARY for token in encoded.ids)


@names
def test_a_problem_shares_its_prompt_and_problems_share_the_format_only(name: str) -> None:
    one, other = build(name, 2, VOCABULARY).problems
    prompt = SHAPES[name].prompt
    assert len({e.ids[:prompt] for level in one.levels for e in level}) == 1
    assert 0 < shared_prefix(one.levels[0][0].ids, other.levels[0][0].ids) < prompt


def test_every_sequence_of_a_beam_extends_one_of_the_level_before_and_few_parents_are_kept() -> None:
    shape = SHAPES["beam"]
    (problem,) = build("beam", 1, VOCABULARY).problems
    for before, after in pairwise(problem.levels):
        parents = {p.ids for e in after for p in before if e.ids[: len(p.ids)] == p.ids}
        assert len(parents) == shape.n // shape.width
        assert all(any(e.ids[: len(p)] == p and len(e.ids) > len(p) for p in parents) for e in after)


@names
def test_lengths_and_sharing_are_near_what_the_shape_says(name: str) -> None:
    workload = build(name, 20, VOCABULARY)
    shape = SHAPES[name]
    ends = [len(e.ids) - shape.prompt for p in workload.problems for e in p.levels[-1]]
    assert sum(ends) / len(ends) == pytest.approx(shape.solution, rel=0.1)
    assert workload.tokens / workload.unique == pytest.approx(shape.ceiling, rel=0.12)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=12))
def test_unique_tokens_are_the_distinct_prefixes(sequences: list[tuple[int, ...]]) -> None:
    assert unique_tokens(sequences) == len({ids[: end + 1] for ids in sequences for end in range(len(ids))})


def test_fresh_tokens_of_a_level_are_those_that_no_level_before_had() -> None:
    first = (Encoded((1, 2, 3), (2,), None), Encoded((1, 4), (1,), None))
    second = (Encoded((1, 4, 5, 6), (3,), None), Encoded((1, 4, 5, 7), (3,), None))
    problem = Problem((first, second))
    assert problem.fresh == (4, 3)
    assert problem.tokens == 13


@pytest.mark.parametrize(
    ("name", "ceiling"),
    [
        pytest.param("best-of-16", 1.48, id="best of 16"),
        pytest.param("few-shot", 3.52, id="a long prompt"),
        pytest.param("beam", 6.46, id="levels are scored again and again"),
    ],
)
def test_the_ceiling_is_the_formula_of_n_p_and_s(name: str, ceiling: float) -> None:
    assert SHAPES[name].ceiling == pytest.approx(ceiling, abs=0.01)

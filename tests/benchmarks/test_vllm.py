"""Both vLLM methods in real engine processes: their scores are the plain forward's, and what they compute is told."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.lineup import Setup, engines, make, ready
from benchmarks.methods import Method, OneAtATime, load_body
from benchmarks.running import largest_difference
from benchmarks.vllm_engine import Options
from benchmarks.vllm_method import Engine, EngineFailed
from benchmarks.workload import Problem, build
from tests.benchmarks.conftest import VOCABULARY

pytestmark = pytest.mark.processes
KEYS = ("vllm-tokens", "vllm-last")


@pytest.fixture(scope="module")
def plain(directory: Path) -> OneAtATime:
    return OneAtATime(load_body(directory, "float32", "cpu"))


@pytest.fixture(scope="module")
def methods(directory: Path, plain: OneAtATime) -> Iterator[dict[str, Method]]:
    cores = tuple(sorted(os.sched_getaffinity(0))[-1:])
    setup = Setup(directory, "float32", "cpu", threads=1, cores=cores, vllm_eager=True, vllm_cache_gib=1)
    with engines(setup, KEYS) as started:
        assert ready(started) == {}
        yield make(setup, KEYS, plain, started)[0]


@pytest.fixture(scope="module")
def problem() -> Problem:
    (made,) = build("beam", 1, VOCABULARY).problems
    return Problem(made.levels[:3])


@pytest.mark.parametrize("key", KEYS)
def test_scores_are_the_plain_forwards(
    methods: dict[str, Method], plain: OneAtATime, problem: Problem, key: str
) -> None:
    assert largest_difference(methods[key].score(problem).values, plain.score(problem).values) < 1e-4


def test_token_pooling_computes_every_token(methods: dict[str, Method], problem: Problem) -> None:
    assert methods["vllm-tokens"].score(problem).computed == problem.tokens


def test_the_prefix_cache_works_within_a_problem_and_is_empty_before_the_next(
    methods: dict[str, Method], problem: Problem
) -> None:
    first, second = (methods["vllm-last"].score(problem).computed for _ in range(2))
    assert sum(problem.fresh) <= first < problem.tokens
    assert second == first


def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    options = Options(
        model=str(tmp_path / "missing"),
        task="classify",
        dtype="float32",
        device="cpu",
        threads=1,
        cores=(0,),
        compiled=False,
        cache_gib=1,
    )
    engine = Engine(options)
    try:
        with pytest.raises(EngineFailed, match="Error") as failure:
            engine.wait()
        assert str(tmp_path) not in str(failure.value)
    finally:
        engine.close()

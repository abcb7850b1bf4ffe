"""Sampling for training, and step labels by rollouts through the same port."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.core.contracts import Completion, EvaluationProblem, GenerateRequest, Sampling
from services.core.errors import UpstreamContract
from tests.fakes import FakeGenerator, solution
from training.data.records import LabelledSolution
from training.data.rollouts import RolloutRecipe, label_by_rollouts, sample_and_label
from training.data.sources import FileSource, labelled
from training.recipes.config import ConfigError, Run, check_recipe
from training.recipes.loading import load_causal_for_sampling, load_tokenizer
from training.sampling.backends import SamplingPart, sampler_of
from training.sampling.local import LocalSampler
from training.sampling.port import GeneratorSampler

PROBLEM = EvaluationProblem(id="a", problem="How much is 2 + 2?", answer="4", level=2)


def completion(index: int, text: str, finish_reason: Any = "stop") -> Completion:
    return Completion(index=index, text=text, tokens=1, finish_reason=finish_reason, logprob=None, seed=0)


class Scripted:
    """Completions by prefix: as many `good` ones (which reach 4) as the script says."""

    def __init__(self, good: dict[str, int]) -> None:
        self.good = good
        self.requests: list[GenerateRequest] = []

    def sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
        self.requests += requests
        return [
            [completion(i, "so.\n\n# Answer\n\n" + ("4" if i < self.good[r.prefix] else "5")) for i in range(r.n)]
            for r in requests
        ]


def label(how: Any, text: str, good: dict[str, int]) -> tuple[list[float | None], float | None, Scripted]:
    sampler = Scripted(good)
    (found,) = label_by_rollouts(sampler, [(PROBLEM, text)], SamplingPart(), completions=4, how=how, seed=3)
    return found.labels, found.outcome, sampler


def test_a_step_is_right_as_often_as_its_completions_reach_the_gold_answer() -> None:
    text = solution("5", "One.", "Two.", "Three.")
    good = {"One.\n\n": 3, "One.\n\nTwo.\n\n": 0}
    assert label("soft", text, good)[:2] == ([0.75, 0.0, 0.0], 0.0)
    assert label("hard", text, good)[:2] == ([1.0, 0.0, 0.0], 0.0)


def test_the_last_step_is_judged_by_its_answer_and_not_completed() -> None:
    labels, outcome, sampler = label("hard", solution("4", "One."), {})
    assert (labels, outcome, sampler.requests) == ([1.0], 1.0, [])


def test_equal_prefixes_are_completed_once_and_each_has_its_own_seed() -> None:
    sampler = Scripted({"One.\n\n": 1, "Uno.\n\n": 4})
    texts = [solution("4", "One.", "Two."), solution("5", "One.", "Three."), solution("4", "Uno.", "Two.")]
    found = label_by_rollouts(
        sampler, [(PROBLEM, text) for text in texts], SamplingPart(), completions=4, how="soft", seed=3
    )
    assert [one.prefix for one in sampler.requests] == ["One.\n\n", "Uno.\n\n"]
    assert len({one.sampling.seed for one in sampler.requests}) == 2
    assert [one.labels for one in found] == [[0.25, 1.0], [0.25, 0.0], [1.0, 1.0]]


def test_a_solution_without_an_answer_is_completed_from_every_step() -> None:
    labels, outcome, _ = label("soft", "One.\n\nTwo.", {"One.\n\n": 4, "One.\n\nTwo.\n\n": 2})
    assert (labels, outcome) == ([1.0, 0.5], None)


def test_a_generator_of_the_services_samples_in_order_of_request_and_index() -> None:
    generator = FakeGenerator(["a", "b", "c"], order=[2, 0, 1])
    requests = [GenerateRequest(problem=str(i), n=3, sampling=Sampling(temperature=1.0, seed=i)) for i in range(5)]
    groups = GeneratorSampler(generator, in_flight=2).sample(requests)
    assert [[one.text for one in group] for group in groups] == [["a", "b", "c"]] * 5


def test_a_missing_sample_is_noticed() -> None:
    generator = FakeGenerator(["a"], order=[0, 1])
    with pytest.raises(UpstreamContract):
        GeneratorSampler(generator).sample([GenerateRequest(problem="x", n=3, sampling=Sampling(temperature=1.0))])


@pytest.fixture
def local(tiny_generator: Path) -> LocalSampler:
    run = Run(out=Path("unused"), device="cpu")
    return LocalSampler(load_causal_for_sampling(str(tiny_generator), run), load_tokenizer(str(tiny_generator)), 4)


def test_the_same_requests_give_the_same_samples_and_other_seeds_others(local: LocalSampler) -> None:
    def requests(seed: int) -> list[GenerateRequest]:
        sampling = Sampling(temperature=1.0, max_tokens=8, seed=seed)
        return [GenerateRequest(problem="x " * k, n=2, sampling=sampling) for k in (3, 1, 2)]

    first, again, other = local.sample(requests(1)), local.sample(requests(1)), local.sample(requests(2))
    assert first == again
    assert [[c.text for c in group] for group in first] != [[c.text for c in group] for group in other]
    assert all(
        [c.index for c in group] == [0, 1] and {c.finish_reason for c in group} <= {"stop", "length"} for group in first
    )


@pytest.mark.parametrize(
    "request_",
    [
        GenerateRequest(problem="x", sampling=Sampling(seed=1, stop=["\n"])),
        GenerateRequest(problem="x", indices=[3], sampling=Sampling(seed=1)),
        GenerateRequest(problem="x", sampling=Sampling()),
    ],
    ids=["a stop string", "chosen indices", "no seed"],
)
def test_what_the_local_sampler_cannot_do_is_refused(local: LocalSampler, request_: GenerateRequest) -> None:
    with pytest.raises(ValueError, match="sampl"):
        local.sample([request_])


def test_rollouts_write_what_the_reward_recipe_reads(tiny_generator: Path, tmp_path: Path) -> None:
    table = {
        "generator": str(tiny_generator),
        "run": {"out": str(tmp_path), "device": "cpu"},
        "data": [{"format": "lab", "count": 1}],
    }
    recipe = check_recipe(RolloutRecipe, table)
    one = solution("0", "It is so.", "And so.")

    class Sampler:
        def sample(self, requests: Sequence[GenerateRequest]) -> list[list[Completion]]:
            return [
                [completion(i, one if i else "cut", "stop" if i else "length") for i in range(r.n)] for r in requests
            ]

    file = sample_and_label(recipe, Sampler())
    (found,) = labelled([FileSource(format="labelled", path=str(file))])
    assert isinstance(found, LabelledSolution)
    assert found.steps == ["It is so.", "And so.\n\n# Answer\n\n0"]
    assert found.labels == [0.0, 0.0]


@pytest.mark.parametrize(
    "table",
    [
        {"backend": "http"},
        {"url": "http://localhost:1"},
        {"temperature": 0.0},
        {"backend": "ssh"},
        {"gpu_memory_share": 0.5},
    ],
    ids=["http without url", "url without http", "greedy", "unknown backend", "a share of no GPU"],
)
def test_a_sampling_table_that_cannot_be_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        check_recipe(SamplingPart, table)


def test_each_backend_has_its_sampler(tiny_generator: Path) -> None:
    run = Run(out=Path("unused"), device="cpu")
    names = {
        backend: type(
            sampler_of(
                SamplingPart(backend=backend, url="http://x" if backend == "http" else None), str(tiny_generator), run
            )
        ).__name__
        for backend in ("local", "vllm", "http")
    }
    assert names == {"local": "LocalSampler", "vllm": "EngineSampler", "http": "HttpSampler"}

"""ReST and iterated DPO: what is kept, what is paired, and that a policy learns what the judge prefers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from services.core.answers import extract_answer
from services.core.contracts import EvaluationProblem, GenerateRequest, Sampling
from tests.fakes import solution
from tests.tiny import save_verifier
from tests.training.conftest import StopAt, Tables
from training.dpo import DpoRecipe, Pair, pairs_of, train_dpo, train_on_pairs
from training.lab.domain import Problem
from training.policy.scored import Scored
from training.recipes.config import ConfigError, Recipe, Run, check_recipe
from training.recipes.loading import load_causal_for_sampling, load_tokenizer
from training.rest import RestRecipe, kept, train_rest
from training.sampling.local import LocalSampler

PROBLEM = EvaluationProblem(id="a", problem="How much is 2 + 2?", answer="4", level=2)
DATA = [{"format": "lab", "count": 1, "levels": [1], "seed": 3}]
SAMPLING = {"n": 16, "max_tokens": 60}


def scored(answer: str, score: float | None, correct: bool | None = None) -> Scored:
    text = solution(answer)
    return Scored(PROBLEM, text, score is not None, () if score is None else (score,), score, correct)


def test_the_best_samples_are_kept_once_each() -> None:
    samples = [scored("1", 0.2), scored("2", 0.9), scored("2", 0.9), scored("3", 0.5), scored("4", None)]
    assert [one.score for one in kept(samples, None, 2)] == [0.9, 0.5]
    assert [one.score for one in kept(samples, 0.3, None)] == [0.9, 0.5]
    assert [one.score for one in kept(samples, 0.3, 1)] == [0.9]


def test_a_wrong_answer_is_not_kept_where_gold_counts() -> None:
    assert [one.score for one in kept([scored("1", 0.9, False), scored("4", 0.1, True)], None, 5)] == [0.1]


def test_a_sample_without_an_answer_is_not_kept() -> None:
    assert kept([Scored(PROBLEM, "so it is", True, (1.0,), 1.0, None)], None, 5) == []


def test_the_best_is_paired_with_the_worst_and_so_on() -> None:
    samples = [scored("1", 0.1), scored("2", 0.9), scored("3", 0.5), scored("4", 0.7), scored("5", None)]
    pairs = pairs_of(samples, 0.1, 3)
    assert [(p.chosen, p.rejected) for p in pairs] == [(solution("2"), solution("1")), (solution("4"), solution("3"))]
    assert len(pairs_of(samples, 0.1, 1)) == 1
    assert [p.chosen for p in pairs_of(samples, 0.3, 3)] == [solution("2")]


def test_a_right_answer_outranks_a_better_score_where_gold_counts() -> None:
    (pair,) = pairs_of([scored("5", 0.9, False), scored("4", 0.2, True)], 0.0, 2)
    assert pair.chosen == solution("4")


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([scored("1", 0.5), scored("2", 0.5)], id="a tie"),
        pytest.param([scored("1", 0.5), scored("1", 0.5)], id="equal texts"),
        pytest.param([scored("1", 0.5)], id="a single one"),
        pytest.param([scored("1", None), scored("2", None)], id="none has a score"),
    ],
)
def test_no_pair_is_made_of_equals(samples: list[Scored]) -> None:
    assert pairs_of(samples, 0.0, 3) == []


def share_right(folder: Path, problem: Problem) -> float:
    sampler = LocalSampler(
        load_causal_for_sampling(str(folder), Run(out=Path("x"), device="cpu")), load_tokenizer(str(folder))
    )
    sampling = Sampling(temperature=1.0, max_tokens=60, seed=11)
    (group,) = sampler.sample([GenerateRequest(problem=problem.question, n=64, sampling=sampling)])
    return sum(extract_answer(one.text) == problem.answer for one in group) / len(group)


@pytest.fixture
def policy(tables: Tables, two_minded: Path, tmp_path: Path) -> Tables:
    """Tables of an iterated recipe on the two-minded generator with a verifier of random weights; gold counts."""
    verifier = str(save_verifier(tmp_path / "verifier", "oprm"))

    def made(**more: Any) -> dict[str, Any]:
        model = {"path": str(two_minded), **more.pop("model", {})}
        judge = {"path": verifier, "aggregation": "min", "gold_levels": [1]}
        return tables(**{"verifier": judge, "sampling": SAMPLING, "data": DATA, **more, "model": model})

    return made


def test_the_generator_is_of_two_minds(two_minded: Path, one_problem: Problem) -> None:
    assert 0.2 < share_right(two_minded, one_problem) < 0.8


def test_rest_teaches_what_is_kept(policy: Tables, one_problem: Problem) -> None:
    recipe = check_recipe(RestRecipe, policy(top=4, iterations=2, optimizer={"max_steps": 20, "learning_rate": 2e-3}))
    folder = train_rest(recipe)
    assert share_right(folder, one_problem) > 0.9
    kept_lines = (recipe.run.out / "iteration-1" / "kept.jsonl").read_text().splitlines()
    answers = [extract_answer(json.loads(line)["solution"]) for line in kept_lines]
    assert set(answers) == {one_problem.answer}


def test_dpo_moves_probability_to_what_ranks_higher(policy: Tables, one_problem: Problem) -> None:
    recipe = check_recipe(DpoRecipe, policy(pairs=8, beta=0.5, optimizer={"max_steps": 20, "learning_rate": 1e-4}))
    assert share_right(train_dpo(recipe), one_problem) > 0.9
    lines = [json.loads(line) for line in (recipe.run.out / "iteration-1" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["train_loss"] < 0.6931


def test_dpo_by_lora_is_merged_into_a_plain_model(policy: Tables, one_problem: Problem) -> None:
    model = {"lora": {"rank": 4}}
    recipe = check_recipe(DpoRecipe, policy(model=model, beta=0.5, optimizer={"max_steps": 12, "learning_rate": 2e-3}))
    folder = train_dpo(recipe)
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    assert share_right(folder, one_problem) > 0.7


def test_the_first_dpo_loss_is_that_of_indifference(policy: Tables, one_problem: Problem, tmp_path: Path) -> None:
    made = policy(optimizer={"max_steps": 1, "learning_rate": 1e-3}, run={"log_every": 1})
    recipe = check_recipe(Recipe, {name: made[name] for name in ("model", "run", "optimizer")})
    pair = Pair(problem=one_problem.question, chosen=one_problem.solution, rejected=solution("5"))
    train_on_pairs(recipe, [pair], beta=0.1)
    lines = [json.loads(line) for line in (recipe.run.out / "log.jsonl").read_text().splitlines()]
    assert float(lines[1]["loss"]) == pytest.approx(0.6931, abs=1e-3)  # log 2: policy and reference agree


def test_a_resumed_dpo_ends_with_the_same_weights(policy: Tables, one_problem: Problem, tmp_path: Path) -> None:
    pairs = [
        Pair(problem=one_problem.question, chosen=one_problem.solution, rejected=solution(str(k))) for k in range(6)
    ]
    found = []
    for name in ("whole", "resumed"):
        made = policy(run={"out": str(tmp_path / name), "save_every": 2}, optimizer={"max_steps": 5, "batch_size": 2})
        tables = {key: made[key] for key in ("model", "run", "optimizer")}
        if name == "resumed":
            train_on_pairs(check_recipe(Recipe, tables), pairs, beta=0.1, callbacks=[StopAt(3)])
            tables["run"]["resume"] = True
        found.append(load_file(train_on_pairs(check_recipe(Recipe, tables), pairs, beta=0.1) / "model.safetensors"))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_finished_iterations_are_not_done_again(policy: Tables, tmp_path: Path) -> None:
    optimizer = {"max_steps": 3}
    whole = train_rest(
        check_recipe(RestRecipe, policy(top=2, iterations=2, optimizer=optimizer, run={"out": str(tmp_path / "a")}))
    )
    run = {"out": str(tmp_path / "b")}
    train_rest(check_recipe(RestRecipe, policy(top=2, iterations=1, optimizer=optimizer, run=run)))
    before = (tmp_path / "b" / "iteration-1" / "done.json").stat().st_mtime_ns
    again = policy(top=2, iterations=2, optimizer=optimizer, run={**run, "resume": True})
    folder = train_rest(check_recipe(RestRecipe, again))
    assert (tmp_path / "b" / "iteration-1" / "done.json").stat().st_mtime_ns == before
    a, b = load_file(whole / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_leftovers_of_another_run_are_refused(policy: Tables, tmp_path: Path) -> None:
    (tmp_path / "run" / "iteration-1").mkdir(parents=True)
    with pytest.raises(ConfigError, match="earlier run"):
        train_rest(check_recipe(RestRecipe, policy(top=2)))


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        pytest.param(RestRecipe, {}, "what is kept", id="ReST that keeps nothing"),
        pytest.param(RestRecipe, {"top": 1, "threshold": 1.5}, "threshold", id="a threshold above 1"),
        pytest.param(
            RestRecipe,
            {"top": 1, "iterations": 2, "sampling": {"backend": "http", "url": "http://x"}},
            "keeps its model",
            id="two iterations over one service",
        ),
        pytest.param(DpoRecipe, {"beta": 0.0}, "beta", id="no beta"),
        pytest.param(DpoRecipe, {"margin": -1.0}, "margin", id="a negative margin"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(policy: Tables, kind: Any, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_recipe(kind, policy(**change))


def test_an_aggregation_that_the_verifier_lacks_is_refused(policy: Tables, tmp_path: Path) -> None:
    verifier = {"path": str(save_verifier(tmp_path / "prm", "prm")), "aggregation": "outcome"}
    with pytest.raises(ConfigError, match="outcome"):
        train_rest(check_recipe(RestRecipe, policy(top=1, verifier=verifier)))


def test_nothing_scored_high_enough_is_an_error(policy: Tables) -> None:
    with pytest.raises(ConfigError, match="no sample"):
        train_rest(check_recipe(RestRecipe, policy(threshold=1.0)))

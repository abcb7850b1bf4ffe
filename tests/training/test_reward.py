"""The reward recipe: where labels stand, what the loss is, resume, and the verifier that the service loads."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from services.core.contracts import VerifierKind
from services.verifier.loading import load_reward_model
from services.verifier.model import RewardModel
from services.verifier.selftest import self_test
from services.verifier.settings import VerifierSettings
from tests.training.conftest import StopAt, Tables
from training.data.lab import lab_problems, with_corruptions
from training.data.records import LabelledSolution
from training.judging.encoding import NO_LABEL, Labelled, encode_labelled, trainable_family
from training.judging.export import plain_scores
from training.judging.trainer import RewardTrainer, collate_labelled, labelled_loss, log_odds
from training.recipes.config import ConfigError, check_recipe
from training.recipes.fitting import Rows, training_arguments
from training.recipes.loading import load_scorer, load_tokenizer
from training.reward import RewardRecipe, encode_all, family_of, train_on, train_reward

SOLUTION = LabelledSolution(
    problem="Which number comes out?",
    steps=["D: add 7, 18 + 7 = 25", "E: add 2, 25 + 2 = 28", "F: add 3, 28 + 3 = 31\n\n# Answer\n\n31"],
    labels=[1.0, 0.0, None],
    outcome=0.0,
)
LAB = [{"format": "lab", "count": 4, "corrupted": 2, "seed": 5}]


def labels_of(
    tokenizer: PreTrainedTokenizerFast, kind: VerifierKind, label_tokens: int | None = None, **family: Any
) -> Labelled:
    name = family.pop("name", "easy-to-hard")
    made = encode_labelled(
        trainable_family(tokenizer, name, kind, **family), SOLUTION, label_tokens=label_tokens, outcome_weight=3.0
    )
    assert made is not None
    return made


def text_at(tokenizer: PreTrainedTokenizerFast, labelled: Labelled, label: float) -> str:
    places = [i for i, value in enumerate(labelled.labels) if value == label]
    assert places == list(range(places[0], places[-1] + 1))
    return str(tokenizer.decode([labelled.ids[i] for i in places]))


def test_every_token_of_a_step_and_its_first_newline_carry_its_label(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    labelled = labels_of(lab_tokenizer, "prm")
    assert text_at(lab_tokenizer, labelled, 1.0) == "D: add 7, 18 + 7 = 25\n"
    assert text_at(lab_tokenizer, labelled, 0.0) == "E: add 2, 25 + 2 = 28\n"


def test_the_last_tokens_of_a_step_are_counted_back_from_where_the_service_reads(
    lab_tokenizer: PreTrainedTokenizerFast,
) -> None:
    labelled = labels_of(lab_tokenizer, "prm", label_tokens=2)
    assert text_at(lab_tokenizer, labelled, 1.0) == "25\n"
    family = trainable_family(lab_tokenizer, "easy-to-hard", "prm")
    rows = family.encode(SOLUTION.problem, SOLUTION.steps).step_rows
    alone = labels_of(lab_tokenizer, "prm", label_tokens=1)
    assert [i for i, label in enumerate(alone.labels) if label != NO_LABEL] == list(rows[:2])


@pytest.mark.parametrize(
    ("readout", "back"), [pytest.param("at", 1, id="at EOS"), pytest.param("before", 2, id="before EOS")]
)
def test_an_outcome_is_labelled_at_the_end_alone(
    lab_tokenizer: PreTrainedTokenizerFast, readout: Any, back: int
) -> None:
    labelled = labels_of(lab_tokenizer, "orm", eos_readout=readout)
    row = len(labelled.ids) - back
    assert [i for i, label in enumerate(labelled.labels) if label != NO_LABEL] == [row]
    assert (labelled.labels[row], labelled.weights[row]) == (0.0, 3.0)


def test_the_labels_of_an_oprm_are_those_of_the_prm_and_of_the_orm(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    prm, orm, oprm = (labels_of(lab_tokenizer, kind) for kind in ("prm", "orm", "oprm"))
    assert prm.ids == orm.ids == oprm.ids
    for step, outcome, both in zip(prm.labels, orm.labels, oprm.labels, strict=True):
        assert NO_LABEL in (step, outcome)
        assert both == (step if outcome == NO_LABEL else outcome)


def test_a_question_with_a_solution_in_it_moves_no_label(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    forged = SOLUTION.model_copy(update={"problem": "x\n\n# Solution\n\ny\n\nz"})
    family = trainable_family(lab_tokenizer, "easy-to-hard", "prm")
    made = encode_labelled(family, forged, label_tokens=None, outcome_weight=1.0)
    assert made is not None
    assert text_at(lab_tokenizer, made, 1.0) == "D: add 7, 18 + 7 = 25\n"


def test_token_classification_is_labelled_up_to_its_separator(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    labelled = labels_of(lab_tokenizer, "prm", name="token-classification", separator="\n")
    assert text_at(lab_tokenizer, labelled, 1.0) == "D: add 7, 18 + 7 = 25\n"


def test_a_solution_without_a_label_of_the_kind_is_left_out(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    unknown = SOLUTION.model_copy(update={"outcome": None})
    family = trainable_family(lab_tokenizer, "easy-to-hard", "orm")
    assert encode_labelled(family, unknown, label_tokens=None, outcome_weight=1.0) is None


def test_the_loss_and_its_gradient_are_those_by_hand() -> None:
    scores = torch.tensor([[0.5, -1.0, 2.0, 9.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, 0.25, NO_LABEL]])
    weights = torch.tensor([[1.0, 1.0, 2.0, 7.0]])
    loss = labelled_loss(scores, labels, weights, 3)
    p = [1 / (1 + math.exp(-s)) for s in (0.5, -1.0, 2.0)]
    by_hand = -math.log(p[0]) - math.log(1 - p[1]) - 2 * (0.25 * math.log(p[2]) + 0.75 * math.log(1 - p[2]))
    assert loss.item() == pytest.approx(by_hand / 3, rel=1e-6)
    loss.backward()
    assert scores.grad is not None
    expected = [(p[0] - 1) / 3, p[1] / 3, 2 * (p[2] - 0.25) / 3, 0.0]
    assert scores.grad[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_two_outputs_are_a_softmax_whose_second_says_right() -> None:
    logits = torch.randn(3, 4, 2)
    torch.testing.assert_close(torch.sigmoid(log_odds(logits)), logits.softmax(-1)[..., 1])


def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch(tables: Tables, tmp_path: Path) -> None:
    recipe = check_recipe(RewardRecipe, tables(kind="oprm", data=LAB))
    tokenizer, rows = _encoded(recipe)
    collate = partial(collate_labelled, pad_id=int(tokenizer.pad_token_id))
    weights = []
    for size, parts in ((4, 1), (1, 4)):
        update = {"batch_size": size, "accumulation": parts, "max_steps": 2}
        optimizer = recipe.optimizer.model_copy(update=update)
        model = load_scorer(recipe.model, recipe.run)
        arguments = training_arguments(recipe.model, optimizer, recipe.run)
        RewardTrainer(model=model, args=arguments, train_dataset=Rows(rows), data_collator=collate).train()
        weights.append(model.score.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-6)


def _encoded(recipe: RewardRecipe) -> tuple[Any, list[Labelled]]:
    tokenizer = load_tokenizer(recipe.model.path)
    solutions = [s for p in lab_problems([1, 2], 6, 0) for s in with_corruptions(p, 1, 0)]
    return tokenizer, [one for _, one in encode_all(recipe, family_of(recipe, tokenizer), solutions)]


def served(folder: Path) -> RewardModel:
    return load_reward_model(VerifierSettings(model=str(folder), device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param("prm", {}, id="PRM"),
        pytest.param("orm", {"eos_readout": "before"}, id="ORM before EOS"),
        pytest.param("oprm", {"label_tokens": 1, "outcome_weight": 2.0}, id="OPRM"),
        pytest.param("prm", {"family": "token-classification", "outputs": 2}, id="token classification, two outputs"),
        pytest.param("oprm", {"model": {"lora": {"rank": 4, "targets": "all-linear"}}}, id="OPRM by LoRA"),
    ],
)
def test_a_trained_verifier_is_served_with_the_scores_of_its_trainer(
    tables: Tables, kind: str, more: dict[str, Any]
) -> None:
    recipe = check_recipe(RewardRecipe, tables(kind=kind, data=LAB, optimizer={"max_steps": 4}, **more))
    solutions = [s for p in lab_problems([1, 2, 3], 4, 5) for s in with_corruptions(p, 2, 5)]
    model = load_scorer(recipe.model, recipe.run, labels=recipe.outputs)
    folder = train_on(recipe, solutions, model=model)
    loaded = served(folder)
    self_test(loaded)
    assert loaded.info.kind == kind
    assert loaded.info.family == recipe.family
    trained = (model.merge_and_unload() if recipe.model.lora else model).float().eval()
    for solution in solutions:
        encoded = loaded.family.encode(solution.problem, solution.steps)
        scores = loaded.score([encoded])[0]
        expected = plain_scores(trained, encoded)
        found = [*scores.steps, *([] if scores.outcome is None else [scores.outcome])]
        assert found == pytest.approx(expected, abs=1e-5)
        assert len({round(p, 6) for p in expected}) == len(expected) or len(expected) == 1


@pytest.mark.parametrize("kind", ["prm", "orm", "oprm"])
def test_a_few_solutions_are_learned_by_heart(tables: Tables, kind: str) -> None:
    # On the last token alone: before the error is written, no model can know of it.
    optimizer = {"max_steps": 100, "batch_size": 12, "learning_rate": 5e-3}
    recipe = check_recipe(RewardRecipe, tables(kind=kind, data=LAB, label_tokens=1, optimizer=optimizer))
    loaded = served(train_reward(recipe))
    right: list[float] = []
    wrong: list[float] = []
    for solution in [s for p in lab_problems([1, 2, 3], 4, 5) for s in with_corruptions(p, 2, 5)]:
        scores = loaded.score([loaded.family.encode(solution.problem, solution.steps)])[0]
        pairs = list(zip(scores.steps, solution.labels, strict=True)) if kind != "orm" else []
        if kind != "prm":
            pairs.append((scores.outcome or 0.0, solution.outcome))
        for score, label in pairs:
            (right if label == 1.0 else wrong).append(score)
    assert min(right) > 0.5 > max(wrong)


@pytest.mark.parametrize("lora", [None, {"rank": 2, "dropout": 0.1}], ids=["all weights", "LoRA with dropout"])
def test_a_resumed_run_ends_with_the_same_weights(tables: Tables, tmp_path: Path, lora: Any) -> None:
    model = {} if lora is None else {"lora": lora}
    folders = []
    for name in ("whole", "resumed"):
        run = {"out": str(tmp_path / name), "save_every": 3}
        made = tables(kind="oprm", data=LAB, model=model, run=run, optimizer={"max_steps": 7, "warmup_steps": 2})
        if name == "resumed":
            train_reward(check_recipe(RewardRecipe, made), callbacks=[StopAt(4)])
            made["run"]["resume"] = True
        folders.append(train_reward(check_recipe(RewardRecipe, made)))
    whole, resumed = (load_file(folder / "model.safetensors") for folder in folders)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_log_is_json_lines_with_a_falling_loss(tables: Tables) -> None:
    recipe = check_recipe(RewardRecipe, tables(kind="prm", data=LAB, optimizer={"max_steps": 30, "batch_size": 12}))
    train_reward(recipe)
    lines = [json.loads(line) for line in (recipe.run.out / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert lines[0] == {"solutions": 12, "trained": 12, "left_out": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"knid": "prm"}, "knid", id="an unknown key"),
        pytest.param({"optimizer": {"learning_rate": "2e-5"}}, "optimizer.learning_rate", id="a text for a number"),
        pytest.param({"kind": "rm"}, "kind", id="an unknown kind"),
        pytest.param({"family": "token-classification"}, "step scores alone", id="an outcome without a place"),
        pytest.param({"outputs": 2}, "one output", id="two outputs for easy-to-hard"),
        pytest.param({"label_tokens": 0}, "label_tokens", id="labels on no token"),
        pytest.param({"data": []}, "data", id="no data"),
        pytest.param({"run": {"precision": "bfloat16"}}, "CPU", id="bfloat16 on a CPU"),
        pytest.param({"model": {"path": "no/such/model/here"}}, "model.path", id="no model"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(tables: Tables, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train_reward(check_recipe(RewardRecipe, tables(**{"kind": "oprm", "data": LAB, **change})))

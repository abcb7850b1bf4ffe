"""The dry run of memory, against tensors that exist, and the configs that are shipped."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from tests.training.conftest import Tables
from training.data.rollouts import RolloutRecipe
from training.dpo import DpoRecipe
from training.experiment.plan import Experiment
from training.memory import KINDS, activation_bytes, footprint, main, table
from training.recipes.config import check_recipe, load_recipe
from training.recipes.loading import load_scorer
from training.reward import RewardRecipe
from training.sft import SftRecipe

CONFIGS = Path("training/configs")
LLEMMA = str(CONFIGS / "architectures" / "llemma-7b.json")
LAB = [{"format": "lab", "count": 1}]


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["all weights", "LoRA"])
def test_what_is_counted_is_what_a_step_of_training_holds(tables: Tables, lora: Any) -> None:
    recipe = check_recipe(RewardRecipe, tables(kind="prm", data=LAB, model={} if lora is None else {"lora": lora}))
    found = footprint(recipe, AutoConfig.from_pretrained(recipe.model.path), bfloat16=False)
    model = load_scorer(recipe.model, recipe.run)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()
    assert found.weights == sum(p.nbytes for p in model.parameters())
    assert found.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = [v for state in optimizer.state.values() for name, v in state.items() if name != "step"]
    assert found.optimizer == sum(v.nbytes for v in moments)
    assert found.total == found.weights + found.gradients + found.optimizer + found.activations


def test_checkpointing_keeps_the_layers_inputs_and_one_layer() -> None:
    config = AutoConfig.from_pretrained(LLEMMA)
    kept = activation_bytes(config, 2, 100, bfloat16=True, checkpointing=True, logits=False)
    assert kept == 200 * 4096 * (2 * 32 + 34)
    whole = activation_bytes(config, 2, 100, bfloat16=True, checkpointing=False, logits=False)
    assert whole == 32 * 34 * 200 * 4096


def test_a_7b_model_has_its_parameters_and_loads_nothing() -> None:
    recipe = load_recipe(SftRecipe, CONFIGS / "llemma-7b-sft.toml")
    found = footprint(recipe, AutoConfig.from_pretrained(LLEMMA), bfloat16=True)
    assert found.parameters - found.trained == 6_738_546_688
    # Rank 64 on the seven matrices of each of 32 layers.
    assert found.trained == 32 * 64 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert found.weights == 2 * 6_738_546_688 + 4 * found.trained


@pytest.mark.parametrize("name", ["sft", "reward", "dpo"])
def test_the_shipped_7b_configs_fit_one_gpu(name: str) -> None:
    recipe = load_recipe(KINDS[name], CONFIGS / f"llemma-7b-{name}.toml")
    found = footprint(recipe, AutoConfig.from_pretrained(LLEMMA), bfloat16=True)
    assert 13 * 2**30 < found.total < (80 if name == "dpo" else 40) * 2**30


def test_a_second_copy_of_the_weights_is_counted_where_there_is_one() -> None:
    path = CONFIGS / "lab-dpo.toml"
    recipe = load_recipe(DpoRecipe, path)
    config = AutoConfig.from_pretrained(recipe.model.path)
    whole = footprint(recipe, config, bfloat16=False)
    assert whole.frozen_copies == whole.weights
    lora = load_recipe(DpoRecipe, path, ["model.lora.rank=4"])
    assert footprint(lora, config, bfloat16=False).frozen_copies == 0


def test_the_command_prints_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sft", str(CONFIGS / "llemma-7b-sft.toml"), "--architecture", LLEMMA, "--tokens", "256"])
    printed = capsys.readouterr().out
    recipe = load_recipe(SftRecipe, CONFIGS / "llemma-7b-sft.toml")
    found = footprint(recipe, AutoConfig.from_pretrained(LLEMMA), bfloat16=True, tokens=256)
    assert printed.strip() == table(found)
    assert f"{found.total / 2**30:.2f} GiB" in printed
    assert math.isclose(found.total / 2**30, 16, abs_tol=6)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_shipped_config_is_one_of_its_recipe(file: Path) -> None:
    kinds: dict[str, Any] = {**KINDS, "rollouts": RolloutRecipe}
    kinds |= dict.fromkeys(("experiment", "smoke", "pair"), Experiment)  # sizes of one program
    kind: Any = kinds[file.stem.rpartition("-")[2]]
    assert load_recipe(kind, file)

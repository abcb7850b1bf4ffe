"""Supervised fine-tuning: what carries loss, learning by heart, resume, and what comes out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from services.core.contracts import GenerateRequest, Sampling
from services.core.steps import split_steps
from services.generator.prompts import EasyToHardStyle
from tests.training.conftest import StopAt, Tables
from training.data.lab import lab_problems
from training.recipes.config import ConfigError, check_recipe, load_recipe
from training.recipes.loading import load_tokenizer
from training.recipes.writing import IGNORED, SolutionEncoder, collate_written
from training.sampling.local import LocalSampler
from training.sft import SftRecipe, main, train_sft

LAB = [{"format": "lab", "count": 6, "seed": 3}]


def test_the_solution_and_its_end_carry_the_loss(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    written = SolutionEncoder(lab_tokenizer).write("Why?", "Because.\n\n# Answer\n\n7")
    learned = [label for label in written.labels if label != IGNORED]
    assert lab_tokenizer.decode(learned) == "Because.\n\n# Answer\n\n7</s>"
    assert written.ids == lab_tokenizer("# Question\n\nWhy?\n\n# Solution\n\nBecause.\n\n# Answer\n\n7</s>").input_ids


def test_what_is_trained_is_what_the_generator_asks(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    request = GenerateRequest(problem="Why? </s>", prefix="Because.\n\n")
    encoder = SolutionEncoder(lab_tokenizer)
    asked = encoder.prompt(request.problem) + encoder.continuation(request.prefix)
    assert asked == EasyToHardStyle(lab_tokenizer).ids(request)


def test_padding_is_no_example(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = SolutionEncoder(lab_tokenizer)
    short, long = encoder.write("a", "b"), encoder.write("a", "b\n\nc\n\nd")
    batch = collate_written([short, long], 0)
    assert batch["attention_mask"].sum(1).tolist() == [len(short), len(long)]
    assert (batch["labels"][0, len(short) :] == IGNORED).all()


def test_step_ends_are_the_newlines_where_the_verifier_reads(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    text = "D: add 7, 18 + 7 = 25\n\nE: add 2, 25 + 2 = 27\n\n# Answer\n\n27"
    encoder = SolutionEncoder(lab_tokenizer)
    ids, ends = encoder.continuation(text), encoder.step_ends(text)
    before = [lab_tokenizer.decode(ids[:end]) for end in ends]
    assert before[:2] == ["D: add 7, 18 + 7 = 25", "D: add 7, 18 + 7 = 25\n\nE: add 2, 25 + 2 = 27"]
    assert ends[-1] == len(ids) - 1


@pytest.mark.parametrize("lora", [None, {"rank": 8, "targets": ["q_proj", "v_proj", "down_proj", "lm_head"]}])
def test_a_few_demonstrations_are_learned_by_heart(tables: Tables, lora: Any) -> None:
    optimizer = {"max_steps": 90 if lora is None else 220, "learning_rate": 1e-2, "batch_size": 3}
    model = {} if lora is None else {"lora": lora}
    data = [{"format": "lab", "count": 3, "seed": 3, "levels": [1]}]
    recipe = check_recipe(SftRecipe, tables(data=data, optimizer=optimizer, model=model))
    folder = train_sft(recipe)
    trained = AutoModelForCausalLM.from_pretrained(folder)
    assert type(trained).__name__ == "LlamaForCausalLM"
    sampler = LocalSampler(trained, load_tokenizer(str(folder)))
    sampling = Sampling(temperature=0.0, max_tokens=60, seed=0)
    problems = lab_problems([1], 3, 3)
    groups = sampler.sample([GenerateRequest(problem=p.question, n=1, sampling=sampling) for p in problems])
    assert [group[0].text for group in groups] == [p.solution for p in problems]
    assert all(len(split_steps(group[0].text)) == 2 and group[0].finish_reason == "stop" for group in groups)


def test_a_resumed_run_ends_with_the_same_weights(tables: Tables, tmp_path: Path) -> None:
    folders = []
    for name in ("whole", "resumed"):
        run = {"out": str(tmp_path / name), "save_every": 3}
        made = tables(data=LAB, run=run, optimizer={"max_steps": 8, "accumulation": 2, "schedule": "cosine"})
        if name == "resumed":
            train_sft(check_recipe(SftRecipe, made), callbacks=[StopAt(5)])
            made["run"]["resume"] = True
        folders.append(train_sft(check_recipe(SftRecipe, made)))
    whole, resumed = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_gradient_checkpointing_changes_memory_and_no_weight(tables: Tables, tmp_path: Path) -> None:
    made = []
    for on in (False, True):
        run = {"out": str(tmp_path / str(on))}
        recipe = tables(data=LAB, run=run, model={"gradient_checkpointing": on}, optimizer={"max_steps": 3})
        made.append(load_file(train_sft(check_recipe(SftRecipe, recipe)) / "model.safetensors"))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_nothing_that_fits_is_an_error_and_not_an_empty_run(tables: Tables) -> None:
    with pytest.raises(ConfigError, match="max_length"):
        train_sft(check_recipe(SftRecipe, tables(data=LAB, model={"max_length": 16})))


CONFIG = """
[model]
path = "models/generator"
[run]
out = "out/x"
[[data]]
format = "lab"
count = 3
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(CONFIG)
    return file


def test_overrides_reach_tables_and_lists(config: Path) -> None:
    overrides = ["optimizer.learning_rate=1e-3", "data.0.count=7", "run.out=elsewhere/y", "model.lora.rank=2"]
    recipe = load_recipe(SftRecipe, config, overrides)
    assert recipe.optimizer.learning_rate == 1e-3
    assert recipe.data[0] == check_recipe(SftRecipe, _with_count(7)).data[0]
    assert (recipe.run.out, recipe.model.lora and recipe.model.lora.rank) == (Path("elsewhere/y"), 2)


def _with_count(count: int) -> dict[str, Any]:
    return {"model": {"path": "x"}, "run": {"out": "x"}, "data": [{"format": "lab", "count": count}]}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        pytest.param("run.seed", "key=value", id="no value"),
        pytest.param("run.sede=1", "run.sede", id="an unknown key"),
        pytest.param("run.seed=-1", "run.seed", id="a seed below 0"),
        pytest.param("data.3.count=1", "no place", id="a place that is none"),
        pytest.param("model.path.x=1", "no table", id="a text as a table"),
    ],
)
def test_an_override_that_means_nothing_is_refused(config: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(SftRecipe, config, [override])


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[model")
    with pytest.raises(ConfigError, match="TOML"):
        load_recipe(SftRecipe, tmp_path / "x.toml")


def test_the_command_ends_with_one_line_for_what_it_cannot_run(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(config), "--set", "model.path=./no/model"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: model.path: cannot be loaded (OSError)\n"

"""From published shards to a checkpoint that is served: same scores, nothing overwritten, no code run."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from services.cli.main import app
from services.core.errors import ModelLoadError
from services.verifier import conversion
from services.verifier.conversion import convert
from services.verifier.loading import load_reward_model
from services.verifier.model import RewardModel
from services.verifier.settings import VerifierSettings
from tests.references import generative_judge, math_shepherd, qwen_prm, seeded, sizes, written_config
from tests.tiny import edit_config
from tests.vocabularies import llama_tokenizer, qwen_tokenizer

PROBLEM, STEPS = "What is 6 times 7?", ["6 times 7 is 42.", "So.\n\n# Answer\n\n42"]


def load(directory: Path, **fields: Any) -> RewardModel:
    return load_reward_model(VerifierSettings(model=str(directory), device="cpu", **fields))


def scores_of(model: RewardModel) -> list[float]:
    (scores,) = model.score([model.family.encode(PROBLEM, STEPS)])
    return [*scores.steps, *([] if scores.outcome is None else [scores.outcome])]


def settings(source: Path, **fields: Any) -> VerifierSettings:
    return VerifierSettings(model=str(source), **fields)


def save_published(directory: Path, shards: int = 2) -> Any:
    """A checkpoint as the easy-to-hard models are published: pickled shards, the two trained rows tiled."""
    tokenizer = llama_tokenizer()
    module = seeded(LlamaForCausalLM(LlamaConfig(**sizes(tokenizer, vocab_size=len(tokenizer) // 2 * 2 + 2))))
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(5)) * 0.5
    with torch.no_grad():
        module.lm_head.weight.copy_(rows.repeat(module.lm_head.weight.shape[0] // 2, 1))
    module.config.save_pretrained(directory)
    edit_config(directory, architectures=["LlamaForCausalLM"])
    tokenizer.save_pretrained(directory)
    names = list(module.state_dict())
    table = {
        name: f"pytorch_model-{1 + k * shards // len(names):05}-of-{shards:05}.bin" for k, name in enumerate(names)
    }
    for file in sorted(set(table.values())):
        part = {name: weight for name, weight in module.state_dict().items() if table[name] == file}
        part["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        torch.save(part, directory / file)
    index = {"metadata": {}, "weight_map": table}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return module


@pytest.mark.parametrize("kind", ["prm", "orm", "oprm"])
def test_a_published_checkpoint_scores_as_the_mean_of_its_logits(tmp_path: Path, kind: str) -> None:
    module = save_published(tmp_path / "in")
    done = convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in", kind=kind, eos_readout="before"))
    assert (done.family, done.kind, done.collapsed) == ("easy-to-hard", kind, module.lm_head.weight.shape[0])
    model = load(tmp_path / "out")
    encoded = model.family.encode(PROBLEM, STEPS)
    with torch.no_grad():
        logits = module(input_ids=torch.tensor([encoded.ids])).logits[0]
    expected = [float(torch.sigmoid(logits[row].mean(-1))) for row in encoded.rows]
    assert scores_of(model) == pytest.approx(expected, abs=1e-5)
    assert written_config(tmp_path / "out")["e2h"] == {
        "family": "easy-to-hard",
        "kind": kind,
        "eos_readout": "before",
    }


def test_what_is_written_is_safetensors_with_the_collapsed_head_alone(tmp_path: Path) -> None:
    save_published(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in", kind="oprm"))
    names = {name for file in (tmp_path / "out").glob("*.safetensors") for name in load_file(file)}
    assert "score.weight" in names
    assert not any("lm_head" in name or "inv_freq" in name for name in names)
    assert not list((tmp_path / "out").glob("*.bin"))
    assert written_config(tmp_path / "out")["architectures"] == ["LlamaForTokenClassification"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_shards_are_bounded_and_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_published(tmp_path / "in", shards=1)
    monkeypatch.setattr(conversion, "_SHARD_BYTES", 20_000)
    done = convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in", kind="oprm"))
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert done.shards == len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    largest = max(sum(t.nbytes for t in load_file(file).values()) for file in files)
    assert largest <= 20_000 or any(len(load_file(file)) == 1 for file in files)


@pytest.mark.parametrize("make", [qwen_prm, math_shepherd, generative_judge])
def test_a_safetensors_checkpoint_keeps_its_scores(tmp_path: Path, make: Any) -> None:
    reference = make(tmp_path / "in")
    done = convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in"))
    assert done.collapsed is None
    steps = ["a is b.", "so 42."]
    model = load(tmp_path / "out")
    (scores,) = model.score([model.family.encode(PROBLEM, steps)])
    found = [*scores.steps, *([] if scores.outcome is None else [scores.outcome])]
    assert found == pytest.approx(reference.scores(PROBLEM, steps), abs=1e-4)
    config = written_config(tmp_path / "out")
    assert "auto_map" not in config
    assert config["e2h"]["family"] == done.family


def test_tied_tensors_in_a_pickle_are_written_apart(tmp_path: Path) -> None:
    generative_judge(tmp_path / "in")
    weights = load_file(tmp_path / "in" / "model.safetensors")
    (tmp_path / "in" / "model.safetensors").unlink()
    torch.save(
        weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, tmp_path / "in" / "pytorch_model.bin"
    )
    convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in"))
    assert load(tmp_path / "out").info.family == "generative-judge"


# --- tokenizers ------------------------------------------------------------------------------------------------------


def test_a_slow_tokenizer_becomes_a_fast_one(tmp_path: Path) -> None:
    qwen_prm(tmp_path / "in")
    fast = qwen_tokenizer()
    described = json.loads(fast.backend_tokenizer.to_str())["model"]
    vocabulary = fast.get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "in" / name).unlink()
    (tmp_path / "in" / "vocab.json").write_text(json.dumps({t: i for t, i in vocabulary.items() if i < 400}))
    (tmp_path / "in" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in described["merges"]))
    added = [*fast.added_tokens_decoder.items()]
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "added_tokens_decoder": {
            str(i): {"content": t.content, "special": t.special, "lstrip": False, "rstrip": False, "normalized": False}
            for i, t in added
        },
    }
    (tmp_path / "in" / "tokenizer_config.json").write_text(json.dumps(config))
    convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in"))
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    expected = load_before(tmp_path, fast)
    assert list(load(tmp_path / "out").family.encode(PROBLEM, ["a."]).ids) == expected


def _train_sentencepiece(directory: Path) -> None:
    """A tokenizer.model with Llama's options, and no tokenizer.json."""
    text = directory / "text.txt"
    text.write_text(
        "\n".join(["What is six times seven?", "So the answer is 42.", "# Question # Solution # Answer"] * 50)
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        pad_id=-1,
        minloglevel=2,
    )
    text.unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_sentencepiece_tokenizer_gives_two_newline_tokens_for_a_blank_line(tmp_path: Path) -> None:
    save_published(tmp_path / "in")
    _train_sentencepiece(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in", kind="oprm"))
    model = load(tmp_path / "out")
    slow = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "in" / "tokenizer.model"))
    encoded = model.family.encode(PROBLEM, STEPS)
    text = f"# Question\n\n{PROBLEM}\n\n# Solution\n\n" + "\n\n".join(STEPS)
    assert list(encoded.ids) == [1, *slow.encode(text), 2]
    newline = slow.piece_to_id("<0x0A>")
    assert [encoded.ids[row : row + 2] for row in encoded.step_rows] == [(newline, newline)] * 2


def load_before(tmp_path: Path, tokenizer: Any) -> list[int]:
    """Ids of the fast tokenizer that the slow one was taken from."""
    shutil.copytree(tmp_path / "out", tmp_path / "fast")
    tokenizer.save_pretrained(tmp_path / "fast")
    return list(load(tmp_path / "fast").family.encode(PROBLEM, ["a."]).ids)


# --- what is refused -------------------------------------------------------------------------------------------------


class _Canary:
    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.mkdir, (self._path, 0o755)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("hidden", [False, True], ids=["beside the weights", "alone"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, legacy: bool, hidden: bool) -> None:
    save_published(tmp_path / "in", shards=1)
    file = next((tmp_path / "in").glob("*.bin"))
    bomb = _Canary(tmp_path / "canary")
    content = bomb if hidden else {**torch.load(file, weights_only=True), "model.extra": bomb}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelLoadError) as caught:
        convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in", kind="prm"))
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out").exists()
    # Files of the old format cannot be mapped, so they are not even opened as pickles.
    assert ("nothing of it was run" in caught.value.message) or legacy
    assert "\n" not in caught.value.message


def test_the_canary_of_these_tests_sings(tmp_path: Path) -> None:
    torch.save(_Canary(tmp_path / "canary"), tmp_path / "file.bin")
    torch.load(tmp_path / "file.bin", weights_only=False)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("present", ["a file", "a model"])
def test_nothing_is_overwritten(tmp_path: Path, present: str) -> None:
    save_published(tmp_path / "in")
    if present == "a file":
        (tmp_path / "out").write_text("mine")
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ModelLoadError, match="exists already"):
        convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in", kind="prm"))


def test_an_empty_directory_may_be_filled(tmp_path: Path) -> None:
    save_published(tmp_path / "in")
    (tmp_path / "out").mkdir()
    convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in", kind="prm"))
    assert load(tmp_path / "out").info.kind == "prm"


def _break_index(directory: Path) -> None:
    (directory / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}')


def _lose_a_shard(directory: Path) -> None:
    next(directory.glob("*.bin")).unlink()


def _no_table(directory: Path) -> None:
    for file in directory.glob("*.bin"):
        torch.save([torch.ones(2)], file)


def _no_weights(directory: Path) -> None:
    for file in directory.glob("pytorch_model*"):
        file.unlink()


def _untile(directory: Path) -> None:
    for file in directory.glob("*.bin"):
        part = torch.load(file, weights_only=True)
        if "lm_head.weight" in part:
            part["lm_head.weight"] = torch.randn_like(part["lm_head.weight"])
            torch.save(part, file)


def _lose_a_tensor(directory: Path) -> None:
    for file in directory.glob("*.bin"):
        part = torch.load(file, weights_only=True)
        torch.save({k: v for k, v in part.items() if "layers.1.mlp" not in k}, file)


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        pytest.param(_break_index, "outside its directory", id="an index that leaves the directory"),
        pytest.param(_lose_a_shard, "1 of 2 shards are missing", id="a lost shard"),
        pytest.param(_no_table, "no table of tensors", id="no state dict"),
        pytest.param(_no_weights, "no weights", id="no weights"),
        pytest.param(_untile, "causal language model", id="a language model"),
        pytest.param(_lose_a_tensor, "lack tensors", id="a lost tensor"),
        pytest.param(lambda d: (d / "config.json").unlink(), "config.json", id="no config"),
        pytest.param(lambda d: (d / "tokenizer.json").unlink(), "tokenizer", id="no tokenizer"),
        pytest.param(lambda d: edit_config(d, auto_map={"AutoModel": "x.Y"}), "auto_map", id="remote code"),
        pytest.param(lambda d: edit_config(d, model_type="mamba"), "", id="another architecture"),
        pytest.param(lambda d: next(d.glob("*.bin")).write_bytes(b"\x80\x02."), "cannot be read", id="a broken shard"),
        pytest.param(shutil.rmtree, "does not exist", id="no directory"),
    ],
)
def test_a_checkpoint_that_cannot_be_converted_leaves_nothing_behind(tmp_path: Path, breakage: Any, says: str) -> None:
    save_published(tmp_path / "in")
    breakage(tmp_path / "in")
    with pytest.raises(ModelLoadError) as caught:
        convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in", kind="prm"))
    assert says in caught.value.message
    assert caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} <= {"in"}


def test_a_kind_that_nobody_says_is_asked_for_before_anything_is_written(tmp_path: Path) -> None:
    save_published(tmp_path / "in")
    with pytest.raises(ModelLoadError, match="prm, an orm or an oprm"):
        convert(tmp_path / "in", tmp_path / "out", settings(tmp_path / "in"))


# --- the commands ----------------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verifier", *arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_the_command_converts_and_says_what_it_did(tmp_path: Path) -> None:
    save_published(tmp_path / "in")
    code, told = run("convert", str(tmp_path / "in"), str(tmp_path / "out"), "--kind", "oprm", "--eos-readout", "at")
    assert code == 0, told
    assert "easy-to-hard" in told
    assert "rows became one" in told
    assert "passed" in told
    code, told = run("inspect", str(tmp_path / "out"))
    assert code == 0, told
    assert "oprm" in told


def test_without_the_check_the_result_is_not_loaded(tmp_path: Path) -> None:
    save_published(tmp_path / "in")
    _lose_a_tensor(tmp_path / "in")
    code, told = run("convert", str(tmp_path / "in"), str(tmp_path / "out"), "--kind", "prm", "--no-check")
    assert code == 0, told
    assert "not run" in told


def test_the_command_ends_with_3_for_a_pickle_with_code_in_it(tmp_path: Path) -> None:
    save_published(tmp_path / "in", shards=1)
    torch.save(_Canary(tmp_path / "canary"), next((tmp_path / "in").glob("*.bin")))
    code, told = run("convert", str(tmp_path / "in"), str(tmp_path / "out"), "--kind", "prm")
    assert code == 3
    assert "nothing of it was run" in told
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("make", "family", "context"),
    [
        pytest.param(qwen_prm, "qwen-prm, because a two-layer head score with 2 labels", "2048 tokens", id="qwen"),
        pytest.param(math_shepherd, "math-shepherd", "4096 tokens (its sliding window", id="a window"),
    ],
)
def test_inspection_tells_family_and_context(tmp_path: Path, make: Any, family: str, context: str) -> None:
    make(tmp_path)
    code, told = run("inspect", str(tmp_path))
    assert code == 0, told
    assert family in told
    assert context in told


def test_inspection_reads_no_weights(tmp_path: Path) -> None:
    """Headers say it all: the numbers themselves may be gone."""
    qwen_prm(tmp_path)
    file = tmp_path / "model.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    size = file.stat().st_size
    with file.open("r+b") as weights:
        weights.truncate(header)
        weights.truncate(size)  # zeros, as a sparse file
    code, told = run("inspect", str(tmp_path))
    assert code == 0, told


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        pytest.param(lambda d: edit_config(d, auto_map={}, architectures=["X"]), "auto_map", id="remote code"),
        pytest.param(lambda d: (d / "tokenizer.json").unlink(), "no tokenizer.json", id="no tokenizer"),
        pytest.param(lambda d: (d / "config.json").unlink(), "config.json", id="no config"),
        pytest.param(lambda d: edit_config(d, hidden_size=48), "does not fit", id="another width"),
        pytest.param(lambda d: edit_config(d, e2h={"family": "skywork"}), "no reward head", id="another family"),
        pytest.param(lambda d: edit_config(d, e2h={"kind": "orm"}), "said to be an orm", id="another kind"),
        pytest.param(lambda d: edit_config(d, model_type="bert"), "bidirectional", id="an encoder"),
        pytest.param(lambda d: (d / "model.safetensors").write_bytes(b"x"), "no readable", id="broken weights"),
        pytest.param(
            lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "e2h verifier convert", id="pickled"
        ),
    ],
)
def test_inspection_tells_what_would_be_refused(tmp_path: Path, breakage: Any, says: str) -> None:
    qwen_prm(tmp_path)
    breakage(tmp_path)
    code, told = run("inspect", str(tmp_path))
    assert code == 3
    assert says in " ".join(told.split())
    assert "mend:" in told


def test_inspection_of_an_untiled_head_named_easy_to_hard_is_a_refusal(tmp_path: Path) -> None:
    math_shepherd(tmp_path)
    code, told = run("inspect", str(tmp_path), "--family", "easy-to-hard", "--kind", "prm")
    assert code == 3
    assert "no tiling of two" in told


def test_inspection_of_a_sharded_checkpoint_counts_its_files(tmp_path: Path) -> None:
    qwen_prm(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = list(weights)
    for k in range(3):
        part = {name: weights[name] for name in names[k::3]}
        save_file(part, tmp_path / f"model-0000{k + 1}-of-00003.safetensors", {"format": "pt"})
    code, told = run("inspect", str(tmp_path))
    assert code == 0
    assert "in 3 files" in told

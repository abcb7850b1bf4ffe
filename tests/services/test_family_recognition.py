"""Which family a checkpoint is, what says so, and what is refused instead of guessed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    BloomConfig,
    BloomForTokenClassification,
    Gemma2Config,
    Gemma2ForTokenClassification,
    GPT2Config,
    GPT2ForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    MambaConfig,
    MambaForCausalLM,
    Qwen2Config,
    Qwen2ForTokenClassification,
    RwkvConfig,
    RwkvForCausalLM,
)

from services.core.errors import ModelLoadError
from services.runtime.checkpoint import check_model_directory
from services.verifier.families.architectures import IMPLEMENTED
from services.verifier.families.checkpoint import Checkpoint
from services.verifier.families.registry import FAMILIES, Recognised, recognise
from services.verifier.loading import load_reward_model
from services.verifier.model import RewardModel
from services.verifier.selftest import self_test
from services.verifier.settings import VerifierSettings
from tests.references import (
    HIDDEN,
    REFERENCES,
    PlainProcessRewardModel,
    generative_judge,
    qwen_prm,
    save,
    seeded,
    sequence_classification,
    sizes,
    skywork,
    token_classification,
    written_config,
)
from tests.tiny import edit_config, save_generator
from tests.vocabularies import llama_3_tokenizer, llama_tokenizer, qwen_tokenizer


def load(directory: Path, **fields: Any) -> RewardModel:
    return load_reward_model(VerifierSettings(model=str(directory), device="cpu", **fields))


def served_config(model: RewardModel) -> Any:
    return model.body.config


def recognised(directory: Path, **fields: Any) -> Recognised:
    settings = VerifierSettings(model=str(directory), **fields)
    return recognise(Checkpoint.open(directory, check_model_directory(str(directory), IMPLEMENTED), settings))


@pytest.mark.parametrize(
    ("make", "family", "why"),
    [
        pytest.param(qwen_prm, "qwen-prm", "two-layer head score with 2 labels", id="a two-layer head"),
        pytest.param(skywork, "skywork", "v_head", id="a value head"),
        pytest.param(token_classification, "token-classification", "LlamaForTokenClassification", id="token labels"),
        pytest.param(sequence_classification, "sequence-classification", "ForSequenceClassification", id="one label"),
        pytest.param(generative_judge, "generative-judge", "e2h.family", id="a block in the config"),
    ],
)
def test_a_checkpoint_says_its_family(tmp_path: Path, make: Callable[[Path], Any], family: str, why: str) -> None:
    make(tmp_path)
    found = recognised(tmp_path)
    assert found.family == family
    assert why in found.why


def test_the_operator_has_the_last_word(tmp_path: Path) -> None:
    generative_judge(tmp_path)
    found = recognised(tmp_path, family="rlhflow")
    assert found == Recognised("rlhflow", "E2H_VERIFIER_FAMILY says so")


@pytest.mark.parametrize("path", ["qwen-prm", "math-shepherd-mistral-7b-prm", "Llama3.1-8B-PRM", "Skywork-o1-Open-PRM"])
def test_the_path_says_nothing(tmp_path: Path, path: str) -> None:
    token_classification(tmp_path / path)
    assert recognised(tmp_path / path).family == "token-classification"


def test_a_causal_language_model_without_a_word_about_it_is_refused(tmp_path: Path) -> None:
    save_generator(tmp_path)
    with pytest.raises(ModelLoadError, match="may be of family math-shepherd or rlhflow or generative-judge") as caught:
        load(tmp_path)
    assert "E2H_VERIFIER_FAMILY" in caught.value.hint


def test_a_checkpoint_with_two_heads_is_refused(tmp_path: Path) -> None:
    skywork(tmp_path)
    edit_config(tmp_path, architectures=["Qwen2ForTokenClassification"])
    with pytest.raises(ModelLoadError, match="skywork or token-classification") as caught:
        load(tmp_path)
    assert "E2H_VERIFIER_FAMILY" in caught.value.hint
    assert load(tmp_path, family="skywork").info.family == "skywork"


@pytest.mark.parametrize("name", ["prm", "Qwen-PRM", "../easy-to-hard"])
def test_an_unknown_family_is_refused_with_the_list(tmp_path: Path, name: str) -> None:
    generative_judge(tmp_path)
    with pytest.raises(ModelLoadError, match="there is no family") as caught:
        load(tmp_path, family=name)
    assert all(served in caught.value.hint for served in FAMILIES)


@pytest.mark.parametrize(
    ("make", "family", "says"),
    [
        pytest.param(token_classification, "qwen-prm", "does not write ChatML", id="another tokenizer"),
        pytest.param(skywork, "qwen-prm", "no reward head", id="another head"),
        pytest.param(skywork, "math-shepherd", "no token ▁ки", id="no tag in the vocabulary"),
        pytest.param(qwen_prm, "rlhflow", "does not write Llama 3", id="another chat format"),
        pytest.param(qwen_prm, "skywork", "no reward head", id="no value head"),
        pytest.param(qwen_prm, "easy-to-hard", "prm, an orm or an oprm", id="no kind"),
    ],
)
def test_a_family_that_does_not_fit_is_refused(
    tmp_path: Path, make: Callable[[Path], Any], family: str, says: str
) -> None:
    make(tmp_path)
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path, family=family)
    assert says in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["orm", "oprm"])
def test_a_kind_that_the_family_does_not_give_is_refused(tmp_path: Path, kind: str) -> None:
    qwen_prm(tmp_path)
    with pytest.raises(ModelLoadError, match=f"said to be an {kind}"):
        load(tmp_path, kind=kind)


@pytest.mark.parametrize("labels", [3, 5])
def test_a_head_with_many_labels_is_refused(tmp_path: Path, labels: int) -> None:
    token_classification(tmp_path, labels=labels)
    with pytest.raises(ModelLoadError, match=f"has {labels} outputs, not 1 or 2"):
        load(tmp_path)


def test_an_outcome_model_with_a_two_layer_head_is_served(tmp_path: Path) -> None:
    """Qwen2.5-Math-RM-72B: `Qwen2ForRewardModel`, read at the last token."""
    tokenizer = qwen_tokenizer()
    module = seeded(PlainProcessRewardModel(Qwen2Config(**sizes(tokenizer)), labels=1))
    auto_map = {"AutoModel": "modeling_qwen2_rm.Qwen2ForRewardModel"}
    save(tmp_path, module, tokenizer, architectures=["Qwen2ForRewardModel"], auto_map=auto_map)
    model = load(tmp_path)
    encoded = model.family.encode("p", ["s"])
    with torch.no_grad():
        expected = float(module(torch.tensor([encoded.ids]))[0, -1, 0].sigmoid())
    assert model.info.family == "sequence-classification"
    assert model.score([encoded])[0].outcome == pytest.approx(expected, abs=1e-5)


# --- remote code -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architectures",
    [["Qwen2ForCausalLM"], ["Qwen2ForProcessRewardModel", "Other"], [], None],
    ids=["another", "one more", "none", "unsaid"],
)
def test_remote_code_is_refused_unless_the_architecture_is_ours(tmp_path: Path, architectures: Any) -> None:
    qwen_prm(tmp_path)
    edit_config(tmp_path, architectures=architectures)
    with pytest.raises(ModelLoadError, match="auto_map"):
        load(tmp_path)


def test_the_code_beside_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    qwen_prm(tmp_path)
    canary = tmp_path / "ran"
    source = f"open({str(canary)!r}, 'w').close()\n"
    for name in ("configuration_qwen2_rm.py", "modeling_qwen2_rm.py"):
        (tmp_path / name).write_text(source)
    self_test(load(tmp_path))
    assert not canary.exists()


def test_a_generator_with_remote_code_stays_refused(tmp_path: Path) -> None:
    qwen_prm(tmp_path)
    with pytest.raises(ModelLoadError, match="auto_map"):
        check_model_directory(str(tmp_path))


# --- attention that the forward pass does not compute ----------------------------------------------------------------


def _gemma(**extra: Any) -> Gemma2Config:
    return Gemma2Config(**sizes(llama_3_tokenizer()), head_dim=16, **extra)


def _bert() -> Any:
    tokenizer = llama_3_tokenizer()
    shape = {k: v for k, v in sizes(tokenizer, num_labels=2).items() if k != "num_key_value_heads"}
    return BertForTokenClassification(BertConfig(**shape))


def _bloom() -> Any:
    config = BloomConfig(vocab_size=500, hidden_size=HIDDEN, n_layer=1, n_head=2)
    config.max_position_embeddings = 512
    return BloomForTokenClassification(config)


def _mamba() -> Any:
    config = MambaConfig(vocab_size=500, hidden_size=HIDDEN, num_hidden_layers=1, state_size=4)
    config.max_position_embeddings = 512
    return MambaForCausalLM(config)


def _rwkv() -> Any:
    return RwkvForCausalLM(
        RwkvConfig(vocab_size=500, hidden_size=HIDDEN, num_hidden_layers=2, attention_hidden_size=HIDDEN)
    )


def _chunked() -> Any:
    config = Qwen2Config(**sizes(llama_3_tokenizer(), num_labels=2))
    config.layer_types = ["full_attention", "chunked_attention"]
    return Qwen2ForTokenClassification(config)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(_bert, "bidirectional", id="an encoder"),
        pytest.param(_bloom, "ALiBi", id="alibi"),
        pytest.param(_mamba, "linear_attention", id="a state space model"),
        pytest.param(_rwkv, "recurrent", id="a recurrent model"),
        pytest.param(lambda: Gemma2ForTokenClassification(_gemma(num_labels=2)), "soft cap", id="a soft cap"),
        pytest.param(_chunked, "chunked_attention", id="chunked attention"),
    ],
)
def test_other_attention_is_refused(tmp_path: Path, make: Callable[[], Any], says: str) -> None:
    make().save_pretrained(tmp_path)
    llama_3_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="not fully causal") as caught:
        load(tmp_path, family="token-classification")
    assert says in caught.value.message


def test_a_soft_cap_on_logits_is_refused_where_logits_are_read(tmp_path: Path) -> None:
    generative_judge(tmp_path)
    edit_config(tmp_path, final_logit_softcapping=30.0)
    with pytest.raises(ModelLoadError, match="changes its logits"):
        load(tmp_path)


def test_windows_in_some_layers_bound_the_context(tmp_path: Path) -> None:
    tokenizer = qwen_tokenizer()
    shape = sizes(tokenizer, num_labels=2)
    config = Qwen2Config(**shape, use_sliding_window=True, sliding_window=300, max_window_layers=1)
    save(
        tmp_path,
        seeded(Qwen2ForTokenClassification(config)),
        tokenizer,
        architectures=["Qwen2ForTokenClassification"],
    )
    model = load(tmp_path)
    assert model.context_length == 300
    assert set(served_config(model).layer_types) == {"full_attention"}
    self_test(model)


def test_a_model_with_learned_positions_is_served(tmp_path: Path) -> None:
    tokenizer = llama_3_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_embd=HIDDEN, n_layer=2, n_head=2)
    save(tmp_path, seeded(GPT2ForTokenClassification(config)), tokenizer, architectures=["GPT2ForTokenClassification"])
    model = load(tmp_path)
    assert model.context_length == 512
    self_test(model)


class Acausal(torch.nn.Module):
    """A body in which every position sees the last one."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body, self.config = body, body.config

    def forward(self, input_ids: torch.Tensor, **options: Any) -> Any:
        output = self.body(input_ids=input_ids, **options)
        output.last_hidden_state = output.last_hidden_state + input_ids.shape[1] / 50
        return output

    def set_attn_implementation(self, name: str) -> None:
        self.body.set_attn_implementation(name)


def test_a_body_that_sees_ahead_fails_the_self_test(tmp_path: Path) -> None:
    token_classification(tmp_path)
    sound = load(tmp_path)
    with pytest.raises(ModelLoadError, match="plain forward"):
        self_test(RewardModel(Acausal(sound.body), sound.head, sound.family, sound.info))


def test_a_context_too_short_for_any_solution_is_refused(tmp_path: Path) -> None:
    generative_judge(tmp_path)
    edit_config(tmp_path, max_position_embeddings=64)
    with pytest.raises(ModelLoadError, match="context 64"):
        self_test(load(tmp_path))


# --- tokenizers, templates, shards -----------------------------------------------------------------------------------


def test_a_template_of_another_format_is_refused(tmp_path: Path) -> None:
    qwen_prm(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}")
    with pytest.raises(ModelLoadError, match="does not write ChatML"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        pytest.param("{{ raise_exception('no') }}", "template of this checkpoint fails", id="it raises"),
        pytest.param("{{ messages[0].content }}", "drops or repeats", id="it drops the answer"),
        pytest.param("{% for m in messages %}{{ m.content * 2 }}{% endfor %}", "drops or repeats", id="it repeats"),
    ],
)
def test_a_template_that_loses_a_turn_is_refused(tmp_path: Path, template: str, says: str) -> None:
    sequence_classification(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelLoadError, match=says):
        load(tmp_path)


def test_an_outcome_model_without_a_template_needs_a_word(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer()
    module = seeded(LlamaForSequenceClassification(LlamaConfig(**sizes(tokenizer, num_labels=1))))
    save(tmp_path, module, tokenizer, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(ModelLoadError, match="no chat template") as caught:
        load(tmp_path)
    assert "E2H_VERIFIER_PROMPT" in caught.value.hint
    assert load(tmp_path, prompt="easy-to-hard").info.kind == "orm"


def test_a_judge_without_a_template_is_asked_in_plain_text(tmp_path: Path) -> None:
    generative_judge(tmp_path)
    with_template = load(tmp_path).family.encode("p", ["s"])
    (tmp_path / "chat_template.jinja").unlink()
    model = load(tmp_path)
    text = str(AutoTokenizer.from_pretrained(tmp_path).decode(list(model.family.encode("p", ["s"]).ids)))
    assert text.endswith("# Problem\n\np\n\n# Solution\n\ns\n\n# Verdict\n\n")
    assert "im_start" not in text
    assert len(with_template.ids) > 0
    self_test(model)


def test_a_missing_shard_is_told(tmp_path: Path) -> None:
    qwen_prm(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    save_file(tensors, tmp_path / "model-00001-of-00002.safetensors", {"format": "pt"})
    shards = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(tensors)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelLoadError, match="1 of 2 shards are missing"):
        load(tmp_path)


def test_a_vocabulary_matrix_too_small_for_the_answer_tokens_is_refused(tmp_path: Path) -> None:
    REFERENCES["math-shepherd"](tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["lm_head.weight"][:600].clone()}, file, {"format": "pt"})
    with pytest.raises(ModelLoadError, match="600 rows"):
        load(tmp_path)


def test_only_two_rows_of_the_language_model_head_are_read(tmp_path: Path) -> None:
    reference = REFERENCES["math-shepherd"](tmp_path)
    head = load(tmp_path).head.layers[0].weight
    whole = load_file(reference.directory / "model.safetensors")["lm_head.weight"]
    assert torch.equal(head, whole[[648, 387]])


def test_the_published_config_of_a_model_is_left_as_it_is(tmp_path: Path) -> None:
    qwen_prm(tmp_path)
    before = written_config(tmp_path)
    load(tmp_path)
    assert written_config(tmp_path) == before
    assert "auto_map" in before


@pytest.mark.parametrize("model", [LlamaForCausalLM, LlamaForTokenClassification])
def test_a_base_model_without_a_head_is_refused(tmp_path: Path, model: Any) -> None:
    token_classification(tmp_path)
    body = LlamaForTokenClassification.from_pretrained(tmp_path).model
    body.save_pretrained(tmp_path)
    edit_config(tmp_path, architectures=[model.__name__])
    with pytest.raises(ModelLoadError, match="no reward head"):
        load(tmp_path)

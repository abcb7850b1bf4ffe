"""Loading a reward model, scoring with it as a plain forward pass does, and refusing what cannot be served."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    LlamaForTokenClassification,
)

from services.core.contracts import ScoreRequest, VerifierKind
from services.core.errors import ModelLoadError
from services.verifier.families.base import Encoded
from services.verifier.head import collapse
from services.verifier.loading import load_reward_model
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RawScores, RewardModel
from services.verifier.selftest import self_test
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings
from tests.conftest import CheckpointOf
from tests.tiny import edit_config, save_generator, save_verifier
from tests.vocabularies import llama_tokenizer

PROBLEM = "What is 6 times 7?"
WORDS = ["Bob", " has ", "6", " + 7 = ", "13", ". ", "The door", ",", " is red"]


def load(directory: Path, **fields: Any) -> RewardModel:
    return load_reward_model(VerifierSettings(model=str(directory), device="cpu", **fields))


def plain_scores(directory: Path, encoded: Encoded) -> list[float]:
    """Full logits of one sequence, no batch, no padding, by the model class that the checkpoint was saved from."""
    model = LlamaForTokenClassification.from_pretrained(directory)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([encoded.ids])).logits[0]
    return [float(torch.sigmoid(logits[row].mean())) for row in encoded.rows]


def flat(scores: RawScores) -> list[float]:
    return [*scores.steps, *([] if scores.outcome is None else [scores.outcome])]


def batch_of(model: RewardModel, counts: list[int]) -> list[Encoded]:
    """Solutions with these numbers of steps, all different."""
    steps = [[WORDS[(n * 3 + k) % len(WORDS)] + str(k) for k in range(count)] for n, count in enumerate(counts)]
    return [model.family.encode(PROBLEM, [*some[:-1], f"{some[-1]}\n\n# Answer\n\n{len(some)}"]) for some in steps]


@pytest.mark.parametrize("kind", ["prm", "orm", "oprm"])
@pytest.mark.parametrize("counts", [[1], [20], [1, 20], [3] * 4, list(range(1, 17))], ids=str)
def test_a_batch_scores_as_each_sequence_does_in_a_plain_forward(
    checkpoint_of: CheckpointOf, kind: VerifierKind, counts: list[int]
) -> None:
    model = load(checkpoint_of(kind))
    batch = batch_of(model, counts)
    for encoded, scores in zip(batch, model.score(batch), strict=True):
        assert flat(scores) == pytest.approx(plain_scores(checkpoint_of(kind), encoded), abs=1e-4)
        assert len(scores.steps) == len(encoded.step_rows)


def test_the_scores_of_the_fixture_differ_enough_to_tell_rows_apart(checkpoint_of: CheckpointOf) -> None:
    model = load(checkpoint_of("oprm"))
    scores = flat(model.score(batch_of(model, [12]))[0])
    assert len({round(p, 3) for p in scores}) > 6
    assert all(0.0 < p < 1.0 for p in scores)


@pytest.fixture(scope="module")
def oprm(checkpoint_of: CheckpointOf) -> RewardModel:
    # What was kept would answer the second time, whatever the batch.
    return load(checkpoint_of("oprm"), prefix_cache_mib=0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 12), min_size=1, max_size=8), data=st.data())
def test_batch_mates_and_their_order_change_no_score(oprm: RewardModel, counts: list[int], data: st.DataObject) -> None:
    batch = batch_of(oprm, counts)
    together = oprm.score(batch)
    order = data.draw(st.permutations(range(len(batch))))
    shuffled = oprm.score([batch[place] for place in order])
    for place, scores in zip(order, shuffled, strict=True):
        assert flat(scores) == pytest.approx(flat(together[place]), abs=1e-4)
        assert flat(oprm.score([batch[place]])[0]) == pytest.approx(flat(scores), abs=1e-4)


def save_published(directory: Path, tile: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Path:
    """A checkpoint of the published shape: two trained rows tiled over the vocabulary, no block of ours."""
    torch.manual_seed(3)
    save_generator(directory)
    config = LlamaForCausalLM.from_pretrained(directory).config
    config.vocab_size += config.vocab_size % 2
    model = LlamaForCausalLM(config)
    rows = torch.randn(2, config.hidden_size) * 0.5
    with torch.no_grad():
        tiled = rows.repeat(config.vocab_size // 2, 1)
        model.lm_head.weight.copy_(tiled if tile is None else tile(tiled))
    model.save_pretrained(directory)
    return directory


def test_a_head_tiled_over_the_vocabulary_scores_as_the_mean_of_its_logits(tmp_path: Path) -> None:
    directory = save_published(tmp_path)
    model = load(directory, kind="oprm")
    assert model.head.layers[0].weight.shape[0] == 1
    reference = LlamaForCausalLM.from_pretrained(directory)
    for encoded, scores in zip(batch := batch_of(model, [2, 5]), model.score(batch), strict=True):
        with torch.no_grad():
            logits = reference(input_ids=torch.tensor([encoded.ids])).logits[0]
        expected = [float(torch.sigmoid(logits[row].mean(-1))) for row in encoded.rows]
        assert flat(scores) == pytest.approx(expected, abs=1e-4)


def _one_row_off(tiled: torch.Tensor) -> torch.Tensor:
    tiled = tiled.clone()
    tiled[-1, -1] += 0.01
    return tiled


def _other_fifth_row(tiled: torch.Tensor) -> torch.Tensor:
    return torch.cat([tiled[:4], torch.randn_like(tiled[4:])])


@pytest.mark.parametrize(
    "tile",
    [pytest.param(_other_fifth_row, id="another fifth row"), pytest.param(_one_row_off, id="one number off")],
)
def test_a_head_that_is_no_tiling_of_two_rows_is_refused(
    tmp_path: Path, tile: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    with pytest.raises(ModelLoadError, match="no tiling of two"):
        load(save_published(tmp_path, tile), kind="oprm")


@pytest.mark.parametrize("count", [1, 2, 8])
def test_collapsing_a_head_keeps_the_mean_of_its_outputs(count: int) -> None:
    rows = torch.randn(min(count, 2), 16).repeat(max(1, count // 2), 1)
    hidden = torch.randn(5, 16)
    assert torch.allclose(hidden @ collapse(rows).T, (hidden @ rows.T).mean(-1, keepdim=True), atol=1e-6)


def test_an_odd_number_of_rows_is_no_tiling() -> None:
    with pytest.raises(ModelLoadError):
        collapse(torch.ones(3, 16))


def test_the_model_says_what_it_is(checkpoint_of: CheckpointOf) -> None:
    info = load(checkpoint_of("orm")).info
    assert (info.kind, info.family, info.default_aggregation) == ("orm", "easy-to-hard", "outcome")
    assert info.context_length == 512


@pytest.mark.parametrize(
    ("config", "fields", "readout"),
    [
        pytest.param({}, {}, 1, id="at by default"),
        pytest.param({"eos_readout": "before"}, {}, 2, id="as the config says"),
        pytest.param({"eos_readout": "before"}, {"eos_readout": "at"}, 1, id="as the operator says"),
    ],
)
def test_the_outcome_is_read_where_the_config_or_the_operator_says(
    tmp_path: Path, config: dict[str, Any], fields: dict[str, Any], readout: int
) -> None:
    model = load(save_verifier(tmp_path, "oprm", **config), **fields)
    (encoded,) = batch_of(model, [2])
    assert encoded.outcome_row == len(encoded.ids) - readout


# --- the self-test ---------------------------------------------------------------------------------------------------


def golden_of(model: RewardModel) -> dict[str, Any]:
    steps = ["6 times 7 is 42.", "So.\n\n# Answer\n\n42"]
    (scores,) = model.score([model.family.encode(PROBLEM, steps)])
    return {"problem": PROBLEM, "steps": steps, "scores": list(scores.steps), "outcome": scores.outcome}


@pytest.fixture
def with_golden(tmp_path: Path) -> Path:
    """A tiny verifier whose config holds its golden scores."""
    directory = save_verifier(tmp_path, "oprm")
    own = json.loads((directory / "config.json").read_text())["e2h"]
    edit_config(directory, e2h={**own, "golden": golden_of(load(directory))})
    return directory


def _edit_golden(directory: Path, **entries: Any) -> None:
    own = json.loads((directory / "config.json").read_text())["e2h"]
    edit_config(directory, e2h={**own, "golden": {**own["golden"], **entries}})


@pytest.mark.parametrize("kind", ["prm", "orm", "oprm"])
def test_a_sound_model_passes_its_self_test(checkpoint_of: CheckpointOf, kind: VerifierKind) -> None:
    self_test(load(checkpoint_of(kind)))


def test_a_model_that_reproduces_its_golden_scores_passes(with_golden: Path) -> None:
    self_test(load(with_golden))


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({"scores": [0.1, 0.1]}, id="other scores"),
        pytest.param({"outcome": 0.123}, id="another outcome"),
        pytest.param({"scores": [0.5]}, id="too few scores"),
        pytest.param({"outcome": None}, id="no outcome"),
        pytest.param({"problem": "What is 6 times 8?"}, id="another problem"),
        pytest.param({"scores": [float("nan")] * 2}, id="no numbers"),
        pytest.param({"steps": []}, id="no steps"),
        pytest.param({"steps": ["# Answer\n\n42"]}, id="no reasoning"),
        pytest.param({"problem": 42}, id="a problem that is no text"),
    ],
)
def test_golden_scores_that_do_not_come_out_again_refuse_the_model(with_golden: Path, entries: dict[str, Any]) -> None:
    _edit_golden(with_golden, **entries)
    with pytest.raises(ModelLoadError) as caught:
        self_test(load(with_golden))
    assert caught.value.hint


def test_incomplete_golden_scores_refuse_the_model(with_golden: Path) -> None:
    own = json.loads((with_golden / "config.json").read_text())["e2h"]
    edit_config(with_golden, e2h={**own, "golden": {"problem": PROBLEM}})
    with pytest.raises(ModelLoadError, match="incomplete"):
        self_test(load(with_golden))


def test_the_tokenizer_of_another_model_is_caught(with_golden: Path) -> None:
    llama_tokenizer().save_pretrained(with_golden)
    with pytest.raises(ModelLoadError, match="golden"):
        self_test(load(with_golden))


def test_weights_that_give_nan_are_caught(checkpoint_of: CheckpointOf) -> None:
    model = load(checkpoint_of("oprm"))
    model.head.layers[0].weight.fill_(float("nan"))
    with pytest.raises(ModelLoadError, match="NaN"):
        self_test(model)


class Leaking(RewardModel):
    """A model in which batch mates influence each other."""

    def score(self, batch: Any) -> list[RawScores]:
        shift = (len(batch) - 1) / 100
        return [RawScores(tuple(p - shift for p in s.steps), s.outcome) for s in super().score(batch)]


def test_batch_mates_that_influence_each_other_are_caught(checkpoint_of: CheckpointOf) -> None:
    sound = load(checkpoint_of("oprm"))
    with pytest.raises(ModelLoadError, match="plain forward"):
        self_test(Leaking(sound.body, sound.head, sound.family, sound.info))


# --- what cannot be served -------------------------------------------------------------------------------------------


E2H = {"family": "easy-to-hard"}


def _grow_tokenizer(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_tokens([f"<more_{k}>" for k in range(10)])
    tokenizer.save_pretrained(directory)


def _break_weights(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\x00" * 64)


def _drop_a_tensor(directory: Path) -> None:
    file = directory / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layers.1.mlp" not in k}, file, {"format": "pt"})


BREAKAGES = [
    pytest.param(shutil.rmtree, "does not exist", id="no directory"),
    pytest.param(lambda d: (d / "model.safetensors").unlink(), "no safetensors", id="no safetensors"),
    pytest.param(
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "no safetensors", id="pickled weights"
    ),
    pytest.param(lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json", id="no tokenizer"),
    pytest.param(lambda d: (d / "config.json").unlink(), "config.json", id="no config"),
    pytest.param(lambda d: (d / "config.json").write_text("{"), "config.json", id="a broken config"),
    pytest.param(lambda d: (d / "config.json").write_text("[]"), "config.json", id="a config that is no object"),
    pytest.param(lambda d: edit_config(d, auto_map={"AutoModel": "x.Y"}), "auto_map", id="remote code"),
    pytest.param(lambda d: edit_config(d, e2h=E2H), "prm, an orm or an oprm", id="no kind"),
    pytest.param(lambda d: edit_config(d, e2h=E2H | {"kind": "prmx"}), "prm, an orm or an oprm", id="an unknown kind"),
    pytest.param(lambda d: edit_config(d, e2h=[]), "e2h", id="a block that is no object"),
    pytest.param(
        lambda d: edit_config(d, e2h={"kind": "prm", "family": "no-prm"}), "no-prm", id="a family we do not have"
    ),
    pytest.param(
        lambda d: edit_config(d, e2h=E2H | {"kind": "prm", "eos_readout": "after"}),
        "eos_readout",
        id="unknown eos_readout",
    ),
    pytest.param(
        lambda d: edit_config(d, e2h=E2H | {"kind": "prm", "default_aggregation": "sum"}),
        "default_aggregation",
        id="an unknown aggregation",
    ),
    pytest.param(
        lambda d: edit_config(d, model_type="nosuch"), "unknown to transformers", id="an unknown architecture"
    ),
    pytest.param(_break_weights, "", id="broken weights"),
    pytest.param(_drop_a_tensor, "lack tensors", id="weights that lack a layer"),
    pytest.param(
        lambda d: edit_config(d, e2h=E2H | {"kind": "prm", "default_aggregation": "outcome"}),
        "which a prm does not give",
        id="a default that the kind does not give",
    ),
    pytest.param(_grow_tokenizer, "tokens", id="a tokenizer larger than the embedding"),
]


@pytest.mark.parametrize(("breakage", "says"), BREAKAGES)
def test_a_model_that_cannot_be_served_is_refused_with_the_mend(
    tmp_path: Path, breakage: Callable[[Path], object], says: str
) -> None:
    directory = save_verifier(tmp_path / "model")
    breakage(directory)
    with pytest.raises(ModelLoadError) as caught:
        load(directory)
    assert says in caught.value.message
    assert caught.value.hint


def test_a_model_without_a_reward_head_is_refused(tmp_path: Path) -> None:
    directory = save_verifier(tmp_path)
    LlamaForTokenClassification.from_pretrained(directory).model.save_pretrained(directory)
    edit_config(directory, e2h={"kind": "prm"})
    with pytest.raises(ModelLoadError, match="no reward head"):
        load(directory)


def test_a_device_that_is_not_there_is_refused(checkpoint_of: CheckpointOf) -> None:
    with pytest.raises(ModelLoadError, match="no device named"):
        load_reward_model(VerifierSettings(model=str(checkpoint_of("prm")), device="abacus"))


# --- the service around it -------------------------------------------------------------------------------------------


async def test_a_model_that_gives_nan_costs_the_solution_its_score_and_nobody_a_sentinel(
    checkpoint_of: CheckpointOf,
) -> None:
    verifier = LocalVerifier(
        VerifierSettings(model=str(checkpoint_of("prm")), device="cpu"), VerifierMetrics(CollectorRegistry())
    )
    await verifier.start()
    model = verifier._loaded()[0]
    model.head.layers[0].weight.fill_(float("nan"))
    request = ScoreRequest.model_validate({"problem": PROBLEM, "solutions": [{"text": "It is 42."}]})
    response, _ = await verifier.score(request)
    await verifier.close()
    (solution,) = response.solutions
    assert solution.error is not None
    assert solution.error.code == "non_finite"
    assert (solution.steps, solution.outcome, solution.aggregate.prod) == ([], None, None)

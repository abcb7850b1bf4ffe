"""The packed forward against transformers' own: any decoder, any batch mates, any kept state, every attention."""

import math
import random
import time
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    DeepseekV3Config,
    DeepseekV3Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from services.core.errors import ModelLoadError
from services.verifier import cpu_attention, gpu_attention
from services.verifier import packed_attention as attention
from services.verifier.cpu_linear import has_products
from services.verifier.engine import DeviceOutOfMemory, TrieEngine
from services.verifier.families.base import Encoded
from services.verifier.forward import plain_forward
from services.verifier.head import Head, Linear
from services.verifier.plan import Plan
from services.verifier.trie import key_of, pack

VOCABULARY = 97
PLENTY = 1 << 28
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
}
DECODERS = {
    "llama": (LlamaModel, LlamaConfig),
    "qwen2": (Qwen2Model, Qwen2Config),
    "qwen3": (Qwen3Model, Qwen3Config),
    "mistral": (MistralModel, MistralConfig),
}


def engine_of(name: str = "llama", cache_bytes: int = PLENTY) -> TrieEngine:
    torch.manual_seed(1)
    model, config = DECODERS[name]
    body = model(config(**_SIZES, attn_implementation=attention.NAME)).eval()
    return TrieEngine(body, Head((Linear(torch.randn(1, 48), torch.zeros(1)),)), cache_bytes)


def plainly(engine: TrieEngine, encoded: Encoded) -> list[float]:
    return plain_forward(engine._body, engine._head, encoded).tolist()


def solutions(count: int, prompt: int, steps: int, seed: int = 0, step: int = 6) -> list[Encoded]:
    """Solutions of one problem with 1 to `steps` steps; half of them begin with the same step."""
    draw = random.Random(seed)
    question = [draw.randrange(VOCABULARY) for _ in range(prompt)]
    opening = [draw.randrange(VOCABULARY) for _ in range(step)]
    made = []
    for place in range(count):
        ids, rows = list(question), []
        for k in range(draw.randint(1, steps)):
            ids += (
                opening if k == 0 and place % 2 else [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, step))]
            )
            rows.append(len(ids) - 1)
        made.append(Encoded(tuple(ids), tuple(rows), None))
    return made


def check(engine: TrieEngine, batch: list[Encoded]) -> int:
    """Compare with the plain forward; the number of tokens that were computed."""
    scored = engine.score(batch)
    for encoded, scores in zip(batch, scored, strict=True):
        assert list(scores.values) == pytest.approx(plainly(engine, encoded), abs=1e-4)
    return sum(scores.computed for scores in scored)


def distinct(batch: list[Encoded]) -> int:
    return len({encoded.ids[:end] for encoded in batch for end in range(1, len(encoded.ids) + 1)})


# torch says so once a process; on a GPU it is compiled.
uncompiled = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


@pytest.fixture(params=sorted(DECODERS))
def decoder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def choose(products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's attention of float32 by oneDNN's products, whatever the processor, or by PyTorch's flash attention."""
    least = 0.0 if products and has_products() else math.inf
    monkeypatch.setattr(cpu_attention, "least_work", lambda: least)


@pytest.fixture(params=["products", "flash", "flex"])
def each_attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's attention with and without oneDNN's products, and the GPU's run uncompiled on a CPU."""
    choose(request.param == "products", monkeypatch)
    if request.param == "flex":
        monkeypatch.setattr(cpu_attention, "attend", gpu_attention.attend)


@pytest.mark.parametrize("count", [1, 2, 16, 64])
@pytest.mark.parametrize(
    ("prompt", "steps"), [(3, 40), (80, 6), (300, 60)], ids=["short prompt", "long prompt", "all long"]
)
def test_a_batch_scores_as_plain_forward_passes_do(decoder: str, count: int, prompt: int, steps: int) -> None:
    batch = solutions(count, prompt, steps)
    assert check(engine_of(decoder), batch) == distinct(batch)


@uncompiled
@pytest.mark.parametrize("count", [1, 16, 64])
def test_the_attention_of_a_gpu_scores_as_plain_forward_passes_do(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "attend", gpu_attention.attend)
    batch = solutions(count, 30, 9)
    assert check(engine_of("qwen2"), batch) == distinct(batch)


@uncompiled
@pytest.mark.usefixtures("each_attention")
def test_problems_share_a_batch(decoder: str) -> None:
    engine = engine_of(decoder)
    batch = [*solutions(5, 70, 4, seed=1), *solutions(3, 10, 9, seed=2), *solutions(1, 1, 1, seed=3)]
    assert check(engine, batch) == distinct(batch)


@uncompiled
@pytest.mark.usefixtures("each_attention")
def test_a_search_computes_its_new_tokens_only(decoder: str) -> None:
    engine = engine_of(decoder)
    draw = random.Random(5)
    beams = [tuple(draw.randrange(VOCABULARY) for _ in range(90))]
    known: set[tuple[int, ...]] = set()
    for _ in range(5):
        grown = [
            (*beam, *(draw.randrange(VOCABULARY) for _ in range(draw.randint(2, 9)))) for beam in beams for _ in "1234"
        ]
        batch = [Encoded(ids, (len(ids) - 1,), None) for ids in grown]
        needed = {ids[:end] for ids in grown for end in range(1, len(ids) + 1)}
        assert check(engine, batch) == len(needed - known)
        known |= needed
        beams = draw.sample(grown, min(4, len(grown)))


def test_a_question_asked_again_costs_nothing() -> None:
    engine = engine_of()
    batch = solutions(8, 30, 5)
    first = engine.score(batch)
    again = engine.score(batch)
    assert [scores.values for scores in again] == [scores.values for scores in first]
    assert sum(scores.computed for scores in again) == 0


def test_a_row_that_was_not_read_before_is_computed_again() -> None:
    engine = engine_of()
    one = solutions(1, 30, 8)[0]
    engine.score([one])
    other = Encoded(one.ids, (5, *one.step_rows), None)
    assert check(engine, [other]) == len(one.ids) - 5


@pytest.mark.parametrize("tokens", [0, 1, 50, 400])
def test_a_small_bound_on_what_is_kept_changes_no_score_and_holds(tokens: int) -> None:
    per_token = 3 * 2 * 2 * 8 * 4
    engine = engine_of(cache_bytes=tokens * per_token)
    for seed in range(4):
        check(engine, solutions(6, 40, 6, seed=seed % 2))
        assert engine.cached_bytes <= tokens * per_token


@pytest.fixture(scope="module")
def kept() -> TrieEngine:
    return engine_of(cache_bytes=1 << 16)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True), data=st.data())
def test_neither_mates_nor_order_nor_what_came_before_change_a_score(
    kept: TrieEngine, seeds: list[int], data: st.DataObject
) -> None:
    batch = [one for seed in seeds for one in solutions(4, 20 * seed + 1, 7, seed=seed)]
    order = data.draw(st.permutations(range(len(batch))))
    chosen = [batch[place] for place in order[: data.draw(st.integers(1, len(batch)))]]
    check(kept, chosen)


def test_equal_solutions_are_computed_once() -> None:
    one = solutions(1, 20, 5)[0]
    assert check(engine_of(), [one, one, one]) == len(one.ids)


@uncompiled
@pytest.mark.usefixtures("each_attention")
def test_nan_in_one_solution_stays_there_and_is_not_kept() -> None:
    engine = engine_of()
    batch = solutions(6, 20, 5)
    poison = VOCABULARY - 1
    batch = [Encoded(tuple(t % poison for t in one.ids), one.step_rows, None) for one in batch]
    spoilt = Encoded((*batch[0].ids, poison, 1, 2), (*batch[0].step_rows, len(batch[0].ids) + 2), None)
    sound = engine._body.embed_tokens.weight[poison].clone()
    with torch.no_grad():
        engine._body.embed_tokens.weight[poison] = float("nan")
    *others, bad = engine.score([*batch, spoilt])
    assert all(value == value for scores in others for value in scores.values)
    assert bad.values[-1] != bad.values[-1]
    assert all(value == value for value in bad.values[:-1])
    with torch.no_grad():
        engine._body.embed_tokens.weight[poison] = sound
    check(engine, [spoilt, *batch])


@uncompiled
@pytest.mark.usefixtures("each_attention")
def test_nan_in_what_two_solutions_share_reaches_no_third_one() -> None:
    engine = engine_of()
    poison, prompt = VOCABULARY - 1, tuple(range(20))
    spoilt = [Encoded((*prompt, poison, 1, 2, name), (23,), None) for name in (3, 4)]
    sound = engine._body.embed_tokens.weight[poison].clone()
    with torch.no_grad():
        engine._body.embed_tokens.weight[poison] = float("nan")
    assert all(scores.values[0] != scores.values[0] for scores in engine.score(spoilt))
    check(engine, [Encoded((*prompt, 5, 6), (21,), None)])
    with torch.no_grad():
        engine._body.embed_tokens.weight[poison] = sound
    check(engine, spoilt)


@pytest.mark.parametrize("products", [True, False])
def test_keys_too_large_for_a_finite_score_spoil_no_neighbour(products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(products, monkeypatch)
    plan = Plan(pack([key_of([1, 2]), key_of([3, 4])]), (), ())
    signs = torch.tensor([1.0, -1.0] * 4)
    # Opposite signs: their sum is as if nothing were.
    key = torch.stack([1e38 * signs, 1e38 * signs, signs, signs]).unsqueeze(0)
    query = torch.stack([signs, signs, 9 * signs, 9 * signs]).unsqueeze(0)
    found = cpu_attention.attend(plan, 0, query, key, torch.ones(1, 4, 8), 1.0)
    assert torch.equal(found[2:], torch.ones(2, 1, 8))


@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("all_scores_about", [-300.0, -60.0, 0.0, 60.0, 300.0])
def test_scores_far_from_zero_weigh_as_a_softmax_has_it(
    products: bool, all_scores_about: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(products, monkeypatch)
    torch.manual_seed(0)
    plan = Plan(pack([key_of(range(40))]), (), ())
    key, value, query = torch.randn(1, 40, 8), torch.randn(1, 40, 8), torch.randn(2, 40, 8)
    key[..., 0], query[..., 0] = 1.0, all_scores_about
    scores = (query @ key.transpose(1, 2)).double().masked_fill(~torch.ones(40, 40).tril().bool(), float("-inf"))
    expected = (scores.softmax(-1) @ value.double()).transpose(0, 1).float()
    assert torch.allclose(cpu_attention.attend(plan, 0, query, key, value, 1.0), expected, atol=1e-4)


@pytest.mark.skipif(not has_products(), reason="torch was built without oneDNN")
@pytest.mark.parametrize(
    ("maker", "mkl", "groups", "products"),
    [
        pytest.param(("AuthenticAMD", 26), True, 1, False, id="Zen 5, 1 million"),
        pytest.param(("AuthenticAMD", 26), True, 2, True, id="Zen 5, 2 million"),
        pytest.param(("AuthenticAMD", 25), True, 2, False, id="Zen 4, 2 million"),
        pytest.param(("AuthenticAMD", 25), True, 3, True, id="Zen 4, 3 million"),
        pytest.param(("GenuineIntel", 26), True, 8, False, id="Intel, 8 million"),
        pytest.param(("GenuineIntel", 26), False, 2, False, id="Intel without MKL, 2 million"),
        pytest.param(("GenuineIntel", 26), False, 3, True, id="Intel without MKL, 3 million"),
        pytest.param(("", 0), True, 2, False, id="no x86, 2 million"),
        pytest.param(("", 0), True, 3, True, id="no x86, 3 million"),
    ],
)
def test_float32_goes_through_what_is_faster_on_the_processor(
    maker: tuple[str, int], mkl: bool, groups: int, products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    monkeypatch.setattr(cpu_attention, "maker", lambda: maker)
    monkeypatch.setattr(cpu_attention, "least_work", cpu_attention.least_work.__wrapped__)
    monkeypatch.setattr(cpu_attention, "_by_flash" if products else "_by_products", None)
    plan = Plan(pack([key_of(range(128))]), (), ())
    key = torch.randn(1, 128, 64)
    assert cpu_attention.attend(plan, 0, torch.randn(groups, 128, 64), key, key, 0.1).shape == (128, groups, 64)


def test_bfloat16_never_goes_through_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would round its scores before the softmax."""
    choose(True, monkeypatch)
    monkeypatch.setattr(cpu_attention, "_by_products", None)
    plan = Plan(pack([key_of(range(128))]), (), ())
    key = torch.randn(1, 128, 64, dtype=torch.bfloat16)
    assert cpu_attention.attend(plan, 0, key, key, key, 0.1).dtype == torch.bfloat16


def test_a_thousand_nested_solutions_are_no_longer_than_their_rows() -> None:
    engine = engine_of(cache_bytes=0)
    ids = [place % VOCABULARY for place in range(1200)]
    nested = [Encoded(tuple(ids[:end]), tuple(range(1, end, 2)), None) for end in range(2, 1200, 2)]
    began = time.process_time()
    scored = engine.score(nested)
    nested_s = time.process_time() - began
    began = time.process_time()
    engine.score(nested[-1:])
    alone_s = time.process_time() - began
    assert sum(scores.computed for scores in scored) == len(nested[-1].ids)
    assert scored[-1].values == pytest.approx(plainly(engine, nested[-1]), abs=1e-4)
    # 180,000 scores are read instead of 600; with a scan of the path for each it was over a hundred times.
    assert nested_s < 50 * max(alone_s, 0.05)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(torch.OutOfMemoryError("CUDA out of memory"), id="cuda"),
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory"), id="cpu"),
        pytest.param(MemoryError(), id="python"),
    ],
)
def test_want_of_memory_has_a_name_of_its_own(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()

    def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("services.verifier.engine.packed_forward", fail)
        with pytest.raises(DeviceOutOfMemory):
            engine.score(solutions(2, 5, 2))
    engine.forget()
    check(engine, solutions(2, 5, 2))


def test_another_runtime_error_is_not_taken_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes")

    monkeypatch.setattr("services.verifier.engine.packed_forward", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        engine.score(solutions(2, 5, 2))


def test_a_decoder_that_does_not_use_our_attention_is_refused() -> None:
    body = LlamaModel(LlamaConfig(**_SIZES)).eval()
    with pytest.raises(ModelLoadError, match="cannot be packed"):
        TrieEngine(body, Head((Linear(torch.randn(1, 48), torch.zeros(1)),)), 0)


def test_a_decoder_whose_values_have_another_size_than_its_keys_is_refused() -> None:
    sizes: dict[str, Any] = {
        **_SIZES,
        "num_key_value_heads": _SIZES["num_attention_heads"],
        "first_k_dense_replace": 99,
    }
    heads: dict[str, Any] = {
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
    }
    body = DeepseekV3Model._from_config(DeepseekV3Config(**sizes, **heads), attn_implementation=attention.NAME).eval()
    with pytest.raises(ModelLoadError, match="cannot be packed"):
        TrieEngine(body, Head((Linear(torch.randn(1, _SIZES["hidden_size"]), torch.zeros(1)),)), 0)


@pytest.mark.parametrize("option", ["softcap", "s_aux"])
def test_attention_with_more_than_we_compute_is_refused(option: str) -> None:
    tensor = torch.zeros(1, 1, 1, 8)
    with pytest.raises(ValueError, match="trie"):
        attention.packed_attention(torch.nn.Module(), tensor, tensor, tensor, None, 1.0)
    engine = engine_of()
    module = engine._body.layers[0].self_attn
    with pytest.raises(ValueError, match=option):
        attention.packed_attention(
            module, tensor, tensor, tensor, None, 1.0, trie=Plan(pack([key_of([0])]), (), ()), **{option: 1.0}
        )

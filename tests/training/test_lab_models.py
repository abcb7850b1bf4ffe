"""The lab's tokenizer, the labels' positions, and the verifier's loss."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from services.core.steps import split_steps
from services.runtime.tokens import PlainEncoder
from services.verifier.families.easy_to_hard import EasyToHard
from training.lab.comparison import start_comparison
from training.lab.corrupt import corrupt
from training.lab.domain import MODULUS, Problem, every_door, make_problem
from training.lab.estimates import auc, bootstrap, pass_at
from training.lab.examples import IGNORED, corpus_text, demonstration, easy_problems, equals_ids
from training.lab.judged import NO_LABEL, Encoder, JudgedSolution, collate_packed
from training.lab.models import as_verifier, deepen, new_generator
from training.lab.optim import MuonWithAdamW
from training.lab.reward import Judge
from training.lab.sft import both_stages
from training.lab.tokenizer import build_tokenizer, prompt_ids, prompt_text

_TOKENIZER = build_tokenizer()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return _TOKENIZER


@pytest.fixture
def problem() -> Problem:
    return make_problem(3, 4)


def _ids(text: str) -> list[int]:
    return list(_TOKENIZER.encode(text, add_special_tokens=False))


@given(st.text())
def test_any_text_comes_back_as_it_went_in(text: str) -> None:
    ids = _TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert _TOKENIZER.decode(ids) == text


@given(st.text(), st.text())
def test_a_blank_line_is_two_newline_tokens_between_any_two_texts(before: str, after: str) -> None:
    newline = _ids("\n")
    assert len(newline) == 1
    encode = PlainEncoder(_TOKENIZER).first
    assert encode(f"{before}\n\n{after}") == encode(before) + newline + newline + encode(after)


def test_the_prompt_from_pieces_is_the_encoding_of_its_text(
    tokenizer: PreTrainedTokenizerFast, problem: Problem
) -> None:
    assert prompt_ids(tokenizer, problem.question) == tokenizer(prompt_text(problem.question)).input_ids


def test_every_number_and_every_rule_is_one_token() -> None:
    assert all(len(_ids(str(number))) == 1 for number in range(MODULUS))
    assert all(len(_ids(door.words)) == 1 for door in every_door())


def test_a_saved_tokenizer_loads_as_it_was(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "A  b ,c .\n\n\n naïve 漢字"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.decode(loaded.encode(text, add_special_tokens=False)) == text
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<s>", "</s>", "<pad>")


def test_a_demonstration_learns_the_solution_alone(tokenizer: PreTrainedTokenizerFast, problem: Problem) -> None:
    example = demonstration(tokenizer, problem.question, problem.solution)
    learned = [label for label in example.labels if label != IGNORED]
    assert tokenizer.decode(learned) == problem.solution + "</s>"


def test_the_corpus_never_teaches_a_result(tokenizer: PreTrainedTokenizerFast) -> None:
    equals = equals_ids(tokenizer)
    for seed in range(20):
        example = corpus_text(tokenizer, equals, random.Random(seed))
        for before, label in zip(example.ids, example.labels[1:], strict=False):
            assert before not in equals or label == IGNORED


def _judged(problem: Problem, seed: int) -> tuple[Encoder, list[str], list[JudgedSolution]]:
    encoder, rng = Encoder(_TOKENIZER), random.Random(seed)
    texts = [problem.solution, *(corrupt(problem, rng).text for _ in range(3))]
    return encoder, texts, [encoder.judge(problem, text) for text in texts]


def test_labels_stand_where_the_service_reads_scores(problem: Problem) -> None:
    encoder, texts, solutions = _judged(problem, 1)
    family = EasyToHard(
        PlainEncoder(_TOKENIZER), bos_id=_TOKENIZER.bos_token_id, eos_id=_TOKENIZER.eos_token_id, kind="oprm"
    )
    for text, solution in zip(texts, solutions, strict=True):
        packed = encoder.pack(problem.question, [solution], 0, random.Random(0))
        served = family.encode(problem.question, split_steps(text))
        assert packed.ids == list(served.ids)
        labelled = [i for i, label in enumerate(packed.steps) if label != NO_LABEL]
        assert [i for i in labelled if packed.ids[i] == encoder.newline[0]] == list(served.step_rows)
        assert [i for i, label in enumerate(packed.outcomes) if label != NO_LABEL] == [served.outcome_row]
        assert [bool(packed.steps[i]) for i in served.step_rows] == list(solution.labels)


def test_a_packed_solution_gets_the_numbers_of_a_sequence_of_its_own(problem: Problem) -> None:
    encoder, _, solutions = _judged(problem, 2)
    model = new_generator(_TOKENIZER, 0).model.eval()
    with torch.no_grad():
        for layer in model.layers:  # layers that start as the identity would prove nothing
            layer.self_attn.o_proj.weight.normal_(std=0.1)
            layer.mlp.down_proj.weight.normal_(std=0.1)
        together = encoder.pack(problem.question, solutions, 0, random.Random(0))
        batch = collate_packed([together], 0)
        hidden = model(**{k: batch[k] for k in ("input_ids", "position_ids", "attention_mask")}).last_hidden_state[0]
        for segment, solution in enumerate(solutions, start=1):
            alone = encoder.pack(problem.question, [solution], 0, random.Random(0))
            expected = model(input_ids=torch.tensor([alone.ids])).last_hidden_state[0]
            mine = [i for i, s in enumerate(together.segments) if s == segment]
            torch.testing.assert_close(hidden[mine], expected[-len(mine) :], rtol=1e-4, atol=1e-4)


def test_the_verifier_starts_as_the_generator(problem: Problem) -> None:
    generator = new_generator(_TOKENIZER, 0).eval()
    ids = torch.tensor([prompt_ids(_TOKENIZER, problem.question)])
    with torch.no_grad():
        torch.testing.assert_close(deepen(generator, _TOKENIZER, 1).eval()(ids).logits, generator(ids).logits)


def test_the_comparison_starts_new_heads_as_one_and_two_tokens_back(problem: Problem) -> None:
    encoder, _, solutions = _judged(problem, 5)
    trunk = deepen(new_generator(_TOKENIZER, 0), _TOKENIZER, 0)
    batch = collate_packed([encoder.pack(problem.question, solutions, 0, random.Random(0))], 0)
    start_comparison(trunk, 4, batch)
    trunk.set_attn_implementation("eager")
    attentions = trunk(torch.tensor([prompt_ids(_TOKENIZER, problem.question)]), output_attentions=True).attentions[4]
    assert attentions[0, 0, 30, 29] > 0.95
    assert attentions[0, 1, 30, 28] > 0.95


def test_the_comparison_leaves_the_last_new_layer_free_to_look_everywhere(problem: Problem) -> None:
    encoder, _, solutions = _judged(problem, 5)
    trunk = deepen(new_generator(_TOKENIZER, 0), _TOKENIZER, 0)
    batch = collate_packed([encoder.pack(problem.question, solutions, 0, random.Random(0))], 0)
    start_comparison(trunk, 4, batch)
    trunk.set_attn_implementation("eager")
    attentions = trunk(torch.tensor([prompt_ids(_TOKENIZER, problem.question)]), output_attentions=True).attentions[6]
    torch.testing.assert_close(attentions[0, :, 30, :31], torch.full_like(attentions[0, :, 30, :31], 1 / 31))


def test_a_given_start_is_taken_for_the_first_stage_and_trained_on() -> None:
    start = new_generator(_TOKENIZER, 3)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    found = both_stages(_TOKENIZER, 0, demonstrations=8, steps=10**9, more_demonstrations=24, more_steps=1, start=start)
    changed = [name for name, value in found.state_dict().items() if not torch.equal(value, before[name])]
    assert changed
    # One step from there, not a model of its own.
    name = "model.embed_tokens.weight"
    assert (found.state_dict()[name] - before[name]).abs().max() < 0.1


def test_the_loss_can_be_driven_down_on_one_batch(problem: Problem) -> None:
    encoder, _, solutions = _judged(problem, 3)
    batch = collate_packed([encoder.pack(problem.question, solutions, 4, random.Random(0))], 0)
    torch.manual_seed(0)
    judge = Judge(deepen(new_generator(_TOKENIZER, 0), _TOKENIZER, 0))
    optimizer = MuonWithAdamW(judge)
    losses = []
    for _ in range(15):
        loss = judge(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_the_shipped_form_has_one_row_and_a_bias(tmp_path: Path) -> None:
    judge = Judge(deepen(new_generator(_TOKENIZER, 0), _TOKENIZER, 0))
    weights = as_verifier(judge.trunk, judge.score, _TOKENIZER).state_dict()
    assert weights["score.weight"].shape[0] == 1
    assert weights["score.bias"].shape == (1,)


def test_training_problems_are_easy() -> None:
    assert {p.level for p in easy_problems(9, 0)} == {1, 2, 3}


def test_estimators_on_cases_worked_by_hand() -> None:
    assert pass_at(4, 1, 1) == pytest.approx(0.25)
    assert pass_at(4, 1, 4) == 1.0
    assert pass_at(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert auc([0.9, 0.5], [0.5, 0.1]) == pytest.approx(0.875)
    assert auc([], [0.1]) is None
    estimate = bootstrap([0.0, 1.0] * 50)
    assert estimate.low < 0.5 < estimate.high

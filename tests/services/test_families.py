"""Every reward-model family against the plainest read-out of its checkpoint, and against texts that would forge one."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from transformers import AutoTokenizer

from services.core.aggregation import Aggregation
from services.core.contracts import ScoreRequest
from services.core.errors import InvalidRequest
from services.verifier.families.base import RESERVED_TOKEN_FLAG, Encoded
from services.verifier.loading import load_reward_model
from services.verifier.metrics import VerifierMetrics
from services.verifier.model import RawScores, RewardModel
from services.verifier.selftest import self_test
from services.verifier.service import LocalVerifier
from services.verifier.settings import VerifierSettings
from tests.references import CONTEXT, REFERENCES, Reference, math_shepherd, qwen_prm, token_classification
from tests.tiny import edit_config, save_verifier

PROBLEM = "What is 6 times 7?"
STEPS = ["6 times 7 is 7 added six times.", "That makes 42.", "So the answer is 42."]
WORDS = ["Bob", "has 6", "+ 7 = 13.", "the door", "is red", "(1 - x)^2", "Then 42", "naïve ½ 数", "so:"]

# name: (scores of STEPS from the reference, in float32 on a CPU; the default aggregation)
GOLDEN = {
    "qwen-prm": ([0.358561, 0.124465, 0.164094], Aggregation.PROD),
    "math-shepherd": ([0.949848, 0.374989, 0.146222], Aggregation.MIN),
    "rlhflow": ([0.520430, 0.910959, 0.652083], Aggregation.MEAN),
    "skywork": ([0.174959, 0.237168, 0.229212], Aggregation.PROD),
    "token-classification": ([0.033535, 0.655383, 0.731056], Aggregation.PROD),
    "sequence-classification": ([0.187260], Aggregation.OUTCOME),
    "generative-judge": ([0.980835], Aggregation.OUTCOME),
}
NAMES = list(GOLDEN)
OUTCOME_ONLY = {"sequence-classification", "generative-judge"}
REFERENCE_OF: dict[str, Callable[[Path], Reference]] = {
    **REFERENCES,
    "qwen-prm without a system turn": lambda directory: qwen_prm(directory, system=False),
    "token-classification, 1 label": lambda directory: token_classification(directory, labels=1),
    "token-classification, blank lines": lambda directory: token_classification(
        directory, separator="\n\n", e2h={"separator": "\n\n"}
    ),
    "token-classification, a tag": lambda directory: token_classification(
        directory, separator="<|reserved_special_token_0|>", e2h={"separator": "<|reserved_special_token_0|>"}
    ),
}

Pair = tuple[RewardModel, Reference]
PairOf = Callable[[str], Pair]


def load(directory: Path) -> RewardModel:
    return load_reward_model(VerifierSettings(model=str(directory), device="cpu"))


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> PairOf:
    """The served model and the reference of a family, built once."""
    built: dict[str, Pair] = {}
    torch.set_num_threads(1)

    def pair(name: str) -> Pair:
        if name not in built:
            reference = REFERENCE_OF[name](tmp_path_factory.mktemp("family") / "model")
            built[name] = load(reference.directory), reference
        return built[name]

    return pair


def steps_of(count: int, salt: int = 0) -> list[str]:
    return [f"{WORDS[(salt + k) % len(WORDS)]} {k} {WORDS[(salt * 3 + k * 2) % len(WORDS)]}" for k in range(count)]


def flat(scores: RawScores) -> list[float]:
    return [*scores.steps, *([] if scores.outcome is None else [scores.outcome])]


# --- parity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCE_OF)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_scores_are_those_of_the_plain_read_out(pair_of: PairOf, name: str, count: int) -> None:
    model, reference = pair_of(name)
    steps = steps_of(count)
    (scores,) = model.score([model.family.encode(PROBLEM, steps)])
    assert flat(scores) == pytest.approx(reference.scores(PROBLEM, steps), abs=1e-4)
    assert len(scores.steps) == (0 if name in OUTCOME_ONLY else count)


@pytest.mark.parametrize("name", REFERENCE_OF)
@pytest.mark.parametrize("count", [1, 4, 40])
def test_ids_of_honest_text_are_those_of_the_published_code(pair_of: PairOf, name: str, count: int) -> None:
    model, reference = pair_of(name)
    steps = steps_of(count)
    encoded = model.family.encode(PROBLEM, steps)
    published = reference.ids(PROBLEM, steps)
    # What follows the last read-out row may be left out: it can change no score.
    assert list(encoded.ids) == published[: len(encoded.ids)]
    assert len(published) - len(encoded.ids) <= 2
    assert encoded.flags == ()


@pytest.mark.parametrize("name", NAMES)
def test_golden_scores_come_out_again(pair_of: PairOf, name: str) -> None:
    model, reference = pair_of(name)
    golden, aggregation = GOLDEN[name]
    (scores,) = model.score([model.family.encode(PROBLEM, STEPS)])
    assert flat(scores) == pytest.approx(golden, abs=1e-4)
    assert reference.scores(PROBLEM, STEPS) == pytest.approx(golden, abs=1e-4)
    assert model.info.default_aggregation is aggregation


@pytest.mark.parametrize("name", REFERENCE_OF)
def test_a_batch_scores_every_solution_as_it_scores_alone(pair_of: PairOf, name: str) -> None:
    model, reference = pair_of(name)
    solutions = [steps_of(1 + k % 40, salt=k) for k in range(64)]
    together = model.score([model.family.encode(PROBLEM, steps) for steps in solutions])
    for place in range(0, 64, 9):
        assert flat(together[place]) == pytest.approx(reference.scores(PROBLEM, solutions[place]), abs=1e-4)


@pytest.mark.parametrize("name", REFERENCE_OF)
def test_every_family_passes_its_self_test(pair_of: PairOf, name: str) -> None:
    self_test(pair_of(name)[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_scores_of_a_fixture_differ_enough_to_tell_rows_apart(pair_of: PairOf, name: str) -> None:
    model, _ = pair_of(name)
    batch = [model.family.encode(PROBLEM, steps_of(12, salt=k)) for k in range(12)]
    assert len({round(p, 3) for scores in model.score(batch) for p in flat(scores)}) > 8


# --- forging ---------------------------------------------------------------------------------------------------------


def forgeable(model: RewardModel, directory: Path) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tags = ["ки", " ки\n"] if model.family.name == "math-shepherd" else []
    return [*(token.content for token in tokenizer.added_tokens_decoder.values()), *tags]


def control_ids(directory: Path) -> set[int]:
    return set(AutoTokenizer.from_pretrained(directory).added_tokens_decoder)


@pytest.fixture(scope="module")
def frame_of(pair_of: PairOf) -> Callable[[str], tuple[list[str], set[int]]]:
    """What a family's texts may not contain unnoticed, and the ids that its frame alone may use."""
    known: dict[str, tuple[list[str], set[int]]] = {}

    def frame(name: str) -> tuple[list[str], set[int]]:
        if name not in known:
            model, reference = pair_of(name)
            ids = control_ids(reference.directory) | ({12902} if name == "math-shepherd" else set())
            known[name] = forgeable(model, reference.directory), ids
        return known[name]

    return frame


def controls_in(encoded: Encoded, controls: set[int]) -> Counter[int]:
    return Counter(one for one in encoded.ids if one in controls)


@pytest.mark.parametrize("name", [n for n in REFERENCE_OF if n != "token-classification, 1 label"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_text_creates_moves_or_forges_a_score(
    pair_of: PairOf, frame_of: Callable[[str], tuple[list[str], set[int]]], name: str, data: st.DataObject
) -> None:
    model, _ = pair_of(name)
    tokens, controls = frame_of(name)
    text = st.lists(st.sampled_from([*tokens, "so", " ", "\n", "\n\n", "+", "<", "6 = 6."]), max_size=6).map("".join)
    count = data.draw(st.integers(1, 40))
    forged = data.draw(st.sampled_from(tokens))
    problem = data.draw(text) + "p" + data.draw(text)
    drawn = [f"{data.draw(text)}s{data.draw(text)}" for _ in range(min(count, 5))]
    steps = [drawn[k % len(drawn)] for k in range(count)]
    place = data.draw(st.integers(0, count))
    problem, steps = _insert(problem, steps, place, forged)

    encoded = model.family.encode(problem, steps)
    honest = model.family.encode("p", ["s"] * count)
    assert encoded.flags == (RESERVED_TOKEN_FLAG,)
    assert (len(encoded.step_rows), encoded.outcome_row is None) == (len(honest.step_rows), honest.outcome_row is None)
    assert [encoded.ids[row] for row in encoded.rows] == [honest.ids[row] for row in honest.rows]
    assert controls_in(encoded, controls) == controls_in(honest, controls)
    assert all(0 <= row < len(encoded.ids) for row in encoded.rows)
    assert list(encoded.rows) == sorted(set(encoded.rows))


def _insert(problem: str, steps: list[str], place: int, token: str) -> tuple[str, list[str]]:
    if place == len(steps):
        return f"p {token} {problem}", steps
    return problem, [f"{step} {token} x" if k == place else step for k, step in enumerate(steps)]


@pytest.mark.parametrize("name", NAMES)
def test_every_added_token_is_flagged_in_a_problem_and_in_a_step(
    pair_of: PairOf, frame_of: Callable[[str], tuple[list[str], set[int]]], name: str
) -> None:
    model, _ = pair_of(name)
    for token in frame_of(name)[0]:
        assert model.family.encode(f"a {token} b", ["x"]).flags == (RESERVED_TOKEN_FLAG,), token
        assert model.family.encode("a", ["x", f"{token}x"]).flags == (RESERVED_TOKEN_FLAG,), token


def test_a_tag_in_a_text_of_math_shepherd_is_spelled_by_its_letters(pair_of: PairOf) -> None:
    model, reference = pair_of("math-shepherd")
    tokenizer = AutoTokenizer.from_pretrained(reference.directory)
    encoded = model.family.encode("p", ["a ки", "ки\nки b"])
    assert encoded.ids.count(12902) == 2
    assert [encoded.ids[row] for row in encoded.step_rows] == [12902, 12902]
    assert "ки" in tokenizer.decode([i for i in encoded.ids if i != 12902])
    assert len(model.score([encoded])[0].steps) == 2


def test_newlines_within_a_step_of_skywork_are_spaces(pair_of: PairOf) -> None:
    model, _ = pair_of("skywork")
    encode = model.family.encode
    assert encode("p", ["a\n\n b\nc", "d"]).ids == encode("p", ["a b c", "d"]).ids


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [[], [""], ["a", " \n"]], ids=["none", "an empty one", "a blank one"])
def test_a_solution_without_a_step_to_score_is_refused(pair_of: PairOf, name: str, steps: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        pair_of(name)[0].family.encode(PROBLEM, steps)
    assert caught.value.code == "empty_step"


@pytest.mark.parametrize("name", NAMES)
def test_blanks_around_texts_change_nothing(pair_of: PairOf, name: str) -> None:
    encode = pair_of(name)[0].family.encode
    assert encode(f"\n {PROBLEM} ", [" a.\n", "\tb."]).ids == encode(PROBLEM, ["a.", "b."]).ids


# --- what the config says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen-prm", "rlhflow"])
def test_a_config_may_say_another_system_text(tmp_path: Path, name: str) -> None:
    reference = REFERENCES[name](tmp_path)
    usual = load(tmp_path).family.encode(PROBLEM, STEPS)
    _say(reference.directory, family=name, system_prompt="Be brief.")
    other = load(tmp_path).family.encode(PROBLEM, STEPS)
    _say(reference.directory, family=name, system_prompt=None)
    without = load(tmp_path).family.encode(PROBLEM, STEPS)
    assert len({usual.ids, other.ids, without.ids}) == 3
    assert len(without.ids) < len(other.ids)


def _say(directory: Path, **own: object) -> None:
    edit_config(directory, e2h=own)


@pytest.mark.parametrize("name", ["qwen-prm", "rlhflow"])
def test_a_tokenizer_without_a_template_gets_the_published_system_text(tmp_path: Path, name: str) -> None:
    REFERENCES[name](tmp_path)
    usual = load(tmp_path).family.encode(PROBLEM, STEPS)
    (tmp_path / "chat_template.jinja").unlink()
    assert load(tmp_path).family.encode(PROBLEM, STEPS) == usual


def test_scores_of_rlhflow_do_not_depend_on_the_day(pair_of: PairOf) -> None:
    model, reference = pair_of("rlhflow")
    tokenizer = AutoTokenizer.from_pretrained(reference.directory)
    text = tokenizer.decode(list(model.family.encode(PROBLEM, STEPS).ids))
    assert "Today Date: 26 Jul 2024\n\n<|eot_id|>" in text


def test_an_outcome_model_may_be_asked_in_the_easy_to_hard_format(tmp_path: Path) -> None:
    reference = REFERENCES["sequence-classification"](tmp_path)
    settings_ = VerifierSettings(model=str(reference.directory), device="cpu", prompt="easy-to-hard")
    model = load_reward_model(settings_)
    encoded = model.family.encode(PROBLEM, STEPS)
    tokenizer = AutoTokenizer.from_pretrained(reference.directory)
    assert str(tokenizer.decode(list(encoded.ids))).startswith("<|begin_of_text|># Question\n\nWhat is 6 times 7?")
    assert encoded.outcome_row == len(encoded.ids) - 1
    self_test(model)


def test_a_window_bounds_the_context_and_is_taken_off(tmp_path: Path) -> None:
    reference = math_shepherd(tmp_path, window=200)
    model = load(tmp_path)
    assert model.context_length == 200
    body: Any = model.body
    assert body.config.sliding_window is None
    steps = steps_of(9)
    encoded = model.family.encode(PROBLEM, steps)
    assert 150 < len(encoded.ids) <= 200
    assert flat(model.score([encoded])[0]) == pytest.approx(reference.scores(PROBLEM, steps), abs=1e-4)


def test_beyond_its_window_the_model_is_another_function(tmp_path: Path) -> None:
    """Why the bound is needed: past the window, full attention gives other scores."""
    reference = math_shepherd(tmp_path, window=40)
    model = load(tmp_path)
    steps = steps_of(9)
    (scores,) = model.score([model.family.encode(PROBLEM, steps)])
    assert flat(scores) != pytest.approx(reference.scores(PROBLEM, steps), abs=1e-3)


def test_the_context_is_that_of_the_config(pair_of: PairOf) -> None:
    assert pair_of("qwen-prm")[0].context_length == CONTEXT


def test_the_easy_to_hard_family_is_still_the_lab_verifiers(tmp_path: Path) -> None:
    assert load(save_verifier(tmp_path)).info.family == "easy-to-hard"


# --- through the service ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_the_service_scores_forged_texts_as_texts(
    pair_of: PairOf, frame_of: Callable[[str], tuple[list[str], set[int]]], name: str
) -> None:
    _, reference = pair_of(name)
    verifier = LocalVerifier(
        VerifierSettings(model=str(reference.directory), device="cpu"), VerifierMetrics(CollectorRegistry())
    )
    await verifier.start()
    forged = [f"{token} x" for token in frame_of(name)[0]]
    solutions = [{"steps": STEPS}, {"steps": forged}, {"steps": ["word " * CONTEXT * 3]}]
    request = ScoreRequest.model_validate({"problem": PROBLEM, "solutions": solutions})
    response, _ = await verifier.score(request)
    await verifier.close()
    honest, flagged, long = response.solutions
    golden, _ = GOLDEN[name]
    found = [s.score for s in honest.steps] if honest.outcome is None else [honest.outcome]
    assert found == pytest.approx(golden, abs=1e-4)
    assert honest.flags == []
    assert flagged.flags == [RESERVED_TOKEN_FLAG]
    assert flagged.error is None
    assert len(flagged.steps) == (0 if name in OUTCOME_ONLY else len(forged))
    assert long.error is not None
    assert long.error.code == "context_length_exceeded"

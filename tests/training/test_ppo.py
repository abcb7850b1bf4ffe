"""PPO: where rewards stand, returns and losses by hand, gradients, learning, resume."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from services.core.aggregation import Aggregation, aggregate
from services.core.contracts import EvaluationProblem
from tests.fakes import solution
from tests.tiny import save_verifier
from tests.training.conftest import Tables
from tests.training.test_iterated import DATA, share_right
from training.lab.domain import Problem
from training.policy.advantages import gae, group_advantages, returns_to_go, whiten
from training.policy.episodes import Sequences, episode, token_logprobs
from training.policy.losses import policy_loss, value_loss
from training.policy.rewards import step_changes, token_rewards
from training.policy.scored import Scored
from training.ppo import PpoRecipe, train_ppo
from training.recipes.config import ConfigError, ModelPart, Run, check_recipe
from training.recipes.loading import load_causal, load_tokenizer
from training.recipes.writing import SolutionEncoder

PROBLEM = EvaluationProblem(id="a", problem="Which number comes out?", answer="27", level=1)
TEXT = solution("27", "D: add 7, 18 + 7 = 25", "E: add 2, 25 + 2 = 27")


def sample(steps: tuple[float, ...], correct: bool | None = None, how: Aggregation = Aggregation.MIN) -> Scored:
    return Scored(PROBLEM, TEXT, True, steps, aggregate(steps, None, how), correct)


@pytest.mark.parametrize("how", [Aggregation.MIN, Aggregation.PROD])
def test_what_the_steps_are_paid_sums_to_the_aggregate_less_one(how: Aggregation) -> None:
    scores = (0.9, 0.5, 0.8, 0.4)
    assert sum(step_changes(scores, how)) == pytest.approx((aggregate(scores, None, how) or 0.0) - 1.0)


def test_under_min_only_a_new_worst_step_pays_and_under_prod_every_doubt() -> None:
    assert step_changes((0.9, 0.95, 0.5), Aggregation.MIN) == pytest.approx([-0.1, 0.0, -0.4])
    assert step_changes((0.9, 0.5, 1.0), Aggregation.PROD) == pytest.approx([-0.1, -0.45, 0.0])


def paid(one: Scored, ends: list[int], placement: Any = "steps", how: Aggregation = Aggregation.MIN) -> list[float]:
    return token_rewards(one, ends, 10, how, placement=placement, process_weight=2.0, outcome_weight=3.0)


def test_steps_are_paid_at_their_ends_and_the_answer_at_the_last_token() -> None:
    expected = [0.0] * 10
    expected[2], expected[5], expected[9] = 2 * -0.1, 2 * -0.4, 3.0
    assert paid(sample((0.9, 0.5), correct=True), [2, 5]) == pytest.approx(expected)


def test_paid_at_the_end_the_sum_is_the_same() -> None:
    one = sample((0.9, 0.5), correct=False)
    assert sum(paid(one, [2, 5], "end")) == pytest.approx(sum(paid(one, [2, 5])))
    assert paid(one, [2, 5], "end")[:-1] == [0.0] * 9


def test_a_solution_without_a_score_is_paid_like_the_worst() -> None:
    assert paid(Scored(PROBLEM, "x", False, (), None, None), []) == [0.0] * 9 + [-2.0]


def test_steps_that_cannot_be_placed_are_paid_at_the_end() -> None:
    assert paid(sample((0.9, 0.5)), [2]) == pytest.approx([0.0] * 9 + [-1.0])


def test_a_step_is_paid_where_the_verifier_reads_it(lab_tokenizer: PreTrainedTokenizerFast) -> None:
    made = episode(SolutionEncoder(lab_tokenizer), sample((0.9, 0.5)), 0)
    assert made is not None
    texts = [lab_tokenizer.decode(made.written.solution[: end + 1]) for end in made.ends]
    assert texts == ["D: add 7, 18 + 7 = 25\n", "D: add 7, 18 + 7 = 25\n\nE: add 2, 25 + 2 = 27\n"]


REWARDS = torch.tensor([[0.0, 1.0, -2.0], [3.0, 0.0, 0.0]])
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def test_advantages_are_those_by_hand() -> None:
    values = torch.tensor([[0.5, 0.2, 0.1], [1.0, 9.0, 9.0]])
    advantages, returns = gae(REWARDS, values, MASK, gamma=0.9, lam=0.8)
    deltas = [0.0 + 0.9 * 0.2 - 0.5, 1.0 + 0.9 * 0.1 - 0.2, -2.0 - 0.1]
    third = deltas[2]
    second = deltas[1] + 0.72 * third
    first = deltas[0] + 0.72 * second
    assert advantages[0].tolist() == pytest.approx([first, second, third], rel=1e-5)
    assert advantages[1].tolist() == pytest.approx([2.0, 0.0, 0.0])
    assert returns[0].tolist() == pytest.approx([first + 0.5, second + 0.2, third + 0.1], rel=1e-5)


def test_with_lambda_one_the_returns_are_the_rewards_to_go() -> None:
    _, returns = gae(REWARDS, torch.randn(2, 3), MASK, gamma=0.9, lam=1.0)
    torch.testing.assert_close(returns, returns_to_go(REWARDS, MASK, 0.9))


def test_a_group_baseline_is_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[1.0, 1.0], [0.0, 5.0], [4.0, 0.0], [7.0, 7.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    advantages = group_advantages(rewards, mask, torch.tensor([0, 0, 0, 1]), gamma=1.0)
    assert advantages.tolist() == [[2 - 4.5, 1 - 4.5], [5 - 3.0, 5 - 3.0], [4 - 3.5, 0.0], [0.0, 0.0]]


def test_whitened_values_have_mean_zero_and_variance_one_over_tokens() -> None:
    values = whiten(torch.randn(4, 6) * 3 + 5, mask := (torch.rand(4, 6) > 0.3).float())
    assert (values * mask).sum().item() == pytest.approx(0.0, abs=1e-4)
    assert ((values**2) * mask).sum().item() / mask.sum().item() == pytest.approx(1.0, abs=1e-4)


def grad(loss: Tensor, of: Tensor) -> list[float]:
    found: Tensor = torch.autograd.grad(loss, of)[0]
    return [float(value) for value in found.flatten()]


def test_the_clipped_loss_and_its_gradient_are_those_by_hand() -> None:
    new = torch.tensor([[0.1, 0.5, -0.5, 0.5, 3.0]], requires_grad=True)
    advantages = torch.tensor([[2.0, 1.0, -1.0, -1.0, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    loss, clipped = policy_loss(new, torch.zeros_like(new), advantages, mask, clip=0.2)
    # Inside the clip; gain held at 1.2; loss held at 0.8; a loss that is never held.
    by_hand = -2 * math.exp(0.1) - 1.2 + 0.8 + math.exp(0.5)
    assert loss.item() == pytest.approx(by_hand / 4, rel=1e-5)
    assert clipped.item() == 0.5
    expected = [-2 * math.exp(0.1) / 4, 0.0, 0.0, math.exp(0.5) / 4, 0.0]
    assert grad(loss, new) == pytest.approx(expected, rel=1e-5)


def test_the_first_gradient_is_that_of_the_policy_gradient() -> None:
    logprobs = torch.randn(2, 3, requires_grad=True)
    advantages = torch.randn(2, 3)
    loss, _ = policy_loss(logprobs, logprobs.detach(), advantages, MASK, clip=0.2)
    assert grad(loss, logprobs) == pytest.approx((-advantages * MASK / 4).flatten().tolist(), rel=1e-5)


def test_the_value_loss_is_held_near_the_old_value() -> None:
    values = torch.tensor([[0.5, 0.1, 9.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    loss = value_loss(values, torch.zeros(1, 3), torch.tensor([[1.0, 1.0, 0.0]]), mask, clip=0.2)
    assert loss.item() == pytest.approx(0.5 * (0.8**2 + 0.9**2) / 2)
    assert grad(loss, values) == pytest.approx([0.0, -0.9 / 2, 0.0])


def test_log_probabilities_do_not_depend_on_padding(tiny_generator: Path) -> None:
    run, model = Run(out=Path("x"), device="cpu"), ModelPart(path=str(tiny_generator))
    policy = load_causal(model, run).eval()
    encoder = SolutionEncoder(load_tokenizer(str(tiny_generator)))
    texts = [TEXT, solution("3", "Short."), "x"]
    made = [episode(encoder, Scored(PROBLEM, text, True, (), None, None), 0) for text in texts]
    episodes = [one for one in made if one is not None]
    with torch.no_grad():
        together = token_logprobs(policy, Sequences.of(episodes, 0, torch.device("cpu")), 0.7)
        for row, one in zip(together, episodes, strict=True):
            ids, n = torch.tensor([one.written.ids]), len(one.written.prompt)
            logits = policy(ids).logits[0, n - 1 : -1] / 0.7
            expected = logits.log_softmax(-1).gather(-1, ids[0, n:, None])[:, 0]
            torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-4, atol=1e-5)
            assert (row[len(expected) :] == 0).all()


@pytest.fixture
def ppo(tables: Tables, two_minded: Path, tmp_path: Path) -> Tables:
    """Tables of a PPO run on the two-minded generator with a verifier of random weights."""
    verifier = str(save_verifier(tmp_path / "verifier", "oprm"))

    def made(**more: Any) -> dict[str, Any]:
        optimizer = {"learning_rate": 3e-4, "value_learning_rate": 1e-3, "batch_size": 16, **more.pop("optimizer", {})}
        model = {"path": str(two_minded), "max_length": 400, **more.pop("model", {})}
        run = {"out": str(tmp_path / "run"), "device": "cpu", "log_every": 1, **more.pop("run", {})}
        sampling = {"n": 16, "max_tokens": 60, **more.pop("sampling", {})}
        judge = {"path": verifier, "aggregation": "min", "gold_levels": [1], **more.pop("verifier", {})}
        return {
            **{"iterations": 2, "data": DATA, "optimizer": optimizer, "model": model, "run": run},
            **{"sampling": sampling, "verifier": judge, **more},
        }

    return made


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"baseline": "value"}, id="GAE over a value model"),
        pytest.param({"baseline": "group", "placement": "end"}, id="a group baseline, paid at the end"),
        pytest.param(
            {"baseline": "group", "model": {"lora": {"rank": 8}}, "optimizer": {"learning_rate": 2e-3}}, id="LoRA"
        ),
    ],
)
def test_a_policy_learns_what_is_paid(ppo: Tables, one_problem: Problem, change: dict[str, Any]) -> None:
    recipe = check_recipe(PpoRecipe, ppo(iterations=8, process_weight=0.1, **change))
    folder = train_ppo(recipe)
    lines = [json.loads(line) for line in (recipe.run.out / "log.jsonl").read_text().splitlines()]
    assert share_right(folder, one_problem) > 0.8
    assert lines[-1]["reward"] > lines[0]["reward"]
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert lines[-1]["kl"] > 0.0


def test_a_strong_kl_weight_holds_the_policy(ppo: Tables, tmp_path: Path) -> None:
    moved = []
    for weight in (0.0, 5.0):
        made = ppo(iterations=4, kl_weight=weight, baseline="group", run={"out": str(tmp_path / str(weight))})
        train_ppo(recipe := check_recipe(PpoRecipe, made))
        moved.append(json.loads((recipe.run.out / "log.jsonl").read_text().splitlines()[-1])["kl"])
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("baseline", ["value", "group"])
def test_a_resumed_run_ends_with_the_same_weights(ppo: Tables, tmp_path: Path, baseline: str) -> None:
    found = []
    for name in ("whole", "resumed"):
        run = {"out": str(tmp_path / name), "save_every": 1}
        made = ppo(iterations=3, baseline=baseline, run=run, optimizer={"schedule": "linear", "epochs": 2})
        if name == "resumed":
            train_ppo(check_recipe(PpoRecipe, made), stop_after=2)
            made["run"]["resume"] = True
        found.append(load_file(train_ppo(check_recipe(PpoRecipe, made)) / "model.safetensors"))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"sampling": {"backend": "vllm"}}, "policy itself", id="another's samples"),
        pytest.param({"sampling": {"top_p": 0.9}}, "top_p", id="cut samples"),
        pytest.param({"sampling": {"n": 1}, "baseline": "group"}, "n of 2", id="a group of one"),
        pytest.param({"model": {"lora": {"dropout": 0.1}}}, "dropout", id="dropout"),
        pytest.param({"clip": 1.5}, "clip", id="a clip above 1"),
        pytest.param({"verifier": {"aggregation": "mean"}}, "min and prod", id="steps paid under mean"),
        pytest.param({"value_model": "no/model/here"}, "model.path", id="no value model"),
        pytest.param({"klweight": 1.0}, "klweight", id="an unknown key"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(ppo: Tables, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train_ppo(check_recipe(PpoRecipe, ppo(**change)))

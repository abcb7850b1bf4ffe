"""The baselines agree with the plain forward, count what they compute, and a wrong score does not pass."""

from pathlib import Path

import pytest
import torch

from benchmarks.gemm import Gemms
from benchmarks.methods import Body, OneAtATime, Padded, Scored, Values, load_body
from benchmarks.models import products
from benchmarks.ours import Trie
from benchmarks.plain import CheckFailed, check_plain
from benchmarks.running import TOLERANCE, largest_difference, measure
from benchmarks.workload import Problem, build
from services.verifier.head import Head, Linear
from tests.benchmarks.conftest import CONFIG, VOCABULARY


@pytest.fixture(scope="module")
def body(directory: Path) -> Body:
    return load_body(directory, "float32", "cpu")


@pytest.fixture(scope="module")
def gemms() -> Gemms:
    return Gemms(products(CONFIG), CONFIG.num_hidden_layers, torch.float32, "cpu")


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Two levels with sequences of many lengths."""
    (made,) = build("beam", 1, VOCABULARY).problems
    return Problem(made.levels[:2])


def _without_bias(head: Head) -> Head:
    return Head(tuple(Linear(layer.weight, torch.zeros_like(layer.bias)) for layer in head.layers))


def test_the_plain_forward_is_that_of_transformers_and_depends_on_early_tokens(directory: Path, body: Body) -> None:
    check_plain(OneAtATime(body), directory, "float32", build("best-of-16", 1, VOCABULARY), 1e-4)


def test_the_check_passes_at_the_precision_of_a_gpu(directory: Path) -> None:
    plain = OneAtATime(load_body(directory, "bfloat16", "cpu"))
    check_plain(plain, directory, "bfloat16", build("best-of-16", 1, VOCABULARY), TOLERANCE["bfloat16"])


def test_scores_that_no_early_token_moves_are_refused(
    directory: Path, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.plain._with_other_token", lambda problem: problem)
    with pytest.raises(CheckFailed, match="another prompt token"):
        check_plain(OneAtATime(body), directory, "float32", build("best-of-16", 1, VOCABULARY), 1e-4)


def test_a_plain_forward_with_another_head_is_refused(directory: Path, body: Body) -> None:
    wrong = Body(body.decoder, _without_bias(body.head), body.device, body.pad_id)
    with pytest.raises(CheckFailed, match="from transformers"):
        check_plain(OneAtATime(wrong), directory, "float32", build("best-of-16", 1, VOCABULARY), 1e-4)


def test_every_method_agrees_with_one_at_a_time(directory: Path, body: Body, problem: Problem) -> None:
    plain = OneAtATime(body).score(problem).values
    for method in (
        Padded(body, "arrival"),
        Padded(body, "sorted", by_length=True),
        Padded(body, "logits", logits=True),
        Trie(directory, "float32", "cpu"),
    ):
        assert largest_difference(method.score(problem).values, plain) < 1e-5, method.name


def test_padded_rows_are_counted(body: Body) -> None:
    (problem,) = build("best-of-16", 1, VOCABULARY).problems
    lengths = [len(e.ids) for e in problem.levels[0]]
    assert OneAtATime(body).score(problem).computed == sum(lengths)
    assert Padded(body, "a").score(problem).computed == 8 * max(lengths[:8]) + 8 * max(lengths[8:])
    ordered = sorted(lengths)
    assert Padded(body, "b", by_length=True).score(problem).computed == 8 * ordered[7] + 8 * ordered[15]


class _Wrong:
    """One score of the whole problem is off."""

    name = "wrong"

    def __init__(self, right: OneAtATime, by: float) -> None:
        self._right = right
        self._by = by

    def score(self, problem: Problem) -> Scored:
        scored = self._right.score(problem)
        scored.values[-1][-1][-1] += self._by
        return scored


@pytest.mark.parametrize(
    ("off", "differs"), [pytest.param(0.5, 0.5, id="off"), pytest.param(float("nan"), float("inf"), id="not a number")]
)
def test_one_wrong_score_is_found(body: Body, gemms: Gemms, off: float, differs: float) -> None:
    plain = OneAtATime(body)
    table = measure(build("best-of-16", 1, VOCABULARY), [_Wrong(plain, off), plain], plain, gemms, rounds=2)
    assert table.methods[0].difference == pytest.approx(differs)
    assert table.methods[1].difference == 0.0


def test_a_missing_score_is_an_error() -> None:
    values: Values = [[[0.1, 0.2]]]
    with pytest.raises(ValueError, match="zip"):
        largest_difference([[[0.1]]], values)


def test_each_round_measures_every_method_and_the_limit(body: Body, gemms: Gemms) -> None:
    plain = OneAtATime(body)
    workload = build("best-of-16", 2, VOCABULARY)
    table = measure(workload, [plain, Padded(body, "padded")], plain, gemms, rounds=3)
    assert [len(measured.seconds) for measured in table.methods] == [3, 3]
    assert len(table.limit) == 3
    assert table.methods[0].computed == workload.tokens
    assert all(table.by_limit(measured) > 1 for measured in table.methods)


def test_the_products_are_the_linear_layers_of_the_model(body: Body) -> None:
    weights = [m.weight.shape for m in body.decoder.layers[0].modules() if isinstance(m, torch.nn.Linear)]
    assert sorted((p.outputs, p.inputs) for p in products(CONFIG)) == sorted(tuple(shape) for shape in weights)

"""The experiment's arithmetic and bookkeeping; the whole path runs in tests/integration/test_experiment_process.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.orchestrator.evaluation.findings import Estimate
from training.experiment.claims import MARGIN, above, claims_of, no_worse
from training.experiment.plan import Experiment
from training.experiment.results import (
    BASE,
    JUDGES,
    MAJORITY,
    ORACLE,
    POLICY_NAMES,
    Floats,
    Results,
    by_seed,
    pooled,
    rule_name,
)
from training.experiment.stages import CONFIGS, RECORD, TRAINED, SeedRun
from training.recipes.config import ConfigError, load_recipe

VALUES = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(0, 1))


@given(VALUES)
@settings(max_examples=30)
def test_the_interval_holds_the_mean_and_stays_within_the_values(values: Floats) -> None:
    found = pooled(values)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.mean == pytest.approx(values.mean(), abs=1e-5)
    assert values.min() - 1e-5 <= found.low <= found.high <= values.max() + 1e-5


def test_the_interval_is_that_of_a_plain_resampling_of_seeds_and_problems() -> None:
    rng = np.random.default_rng(1)
    values = rng.random((3, 40)) + np.array([[0.0], [0.2], [0.4]])
    values[1, 3] = np.nan
    means = [np.nanmean(values[rng.integers(3, size=3)][:, rng.integers(40, size=40)]) for _ in range(4000)]
    found = pooled(values)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)


def test_seeds_that_differ_widen_the_interval() -> None:
    problems = np.tile(np.linspace(0, 1, 50), (3, 1))
    alike, apart = pooled(problems), pooled(problems + np.array([[-0.3], [0.0], [0.3]]))
    assert alike is not None
    assert apart is not None
    assert (apart.high or 0) - (apart.low or 0) > 1.5 * ((alike.high or 0) - (alike.low or 0))


def test_what_is_not_known_is_left_out() -> None:
    values = np.array([[np.nan, 1.0], [0.0, np.nan]])
    found = pooled(values)
    assert found is not None
    assert found.mean == 0.5
    assert by_seed(values) == (1.0, 0.0)
    assert pooled(np.full((2, 2), np.nan)) is None
    assert by_seed(np.full((2, 2), np.nan)) == (None, None)


@pytest.mark.parametrize(
    ("low", "high", "more", "as_good"),
    [
        (0.01, 0.1, "reproduced", "reproduced"),
        (-0.01, 0.1, "undecided", "reproduced"),
        (-2 * MARGIN, 0.1, "undecided", "undecided"),
        (-0.5, -0.001, "not reproduced", "undecided"),
        (-0.5, -2 * MARGIN, "not reproduced", "not reproduced"),
    ],
)
def test_a_verdict_follows_from_where_the_interval_lies(low: float, high: float, more: str, as_good: str) -> None:
    found = Estimate.of((low + high) / 2, low, high)
    assert above(found) == more
    assert no_worse(found) == as_good


def results(**accuracy: float) -> Results:
    """Three seeds, ten easy and ten hard problems; what is not named is right half of the time."""
    levels = (1,) * 10 + (4,) * 10
    names = [MAJORITY, ORACLE, *(rule_name(rule, judge) for rule in ("weighted", "best_of_n") for judge in JUDGES)]
    named = {"weighted_prm": rule_name("weighted", "PRM"), "ppo": POLICY_NAMES["ppo"]}
    shares = {named[key]: value for key, value in accuracy.items()}
    votes = {name: np.full((3, 20, 3), shares.get(name, 0.5)) for name in names}
    policies = {name: np.full((3, 10), shares.get(name, 0.5)) for name in (BASE, *POLICY_NAMES.values())}
    aurocs = {judge: np.full((3, 20), 0.9) for judge in JUDGES}
    return Results((1, 2, 3), levels, (1, 2, 4), votes, aurocs, policies, policies)


def test_claims_say_what_the_numbers_say() -> None:
    verdicts = {claim.letter: claim.findings[0].verdict for claim in claims_of(results(weighted_prm=0.7, ppo=0.3))}
    assert verdicts == {
        "a": "reproduced",
        "b": "reproduced",
        "c": "reproduced",
        "d": "reproduced",
        "e": "not reproduced",
    }
    weaker = {claim.letter: claim.findings[0].verdict for claim in claims_of(results(weighted_prm=0.3, ppo=0.7))}
    assert weaker == dict.fromkeys("abcd", "not reproduced") | {"e": "reproduced"}


def test_easy_problems_do_not_enter_a_claim() -> None:
    found = results(weighted_prm=0.7)
    found.votes[rule_name("weighted", "PRM")][:, :10] = 0.0
    (reranking, *_) = claims_of(found)
    assert reranking.findings[0].difference.mean == pytest.approx(0.2)


def test_a_stage_is_made_once_and_one_that_was_cut_is_made_anew(tmp_path: Path) -> None:
    run = SeedRun(load_recipe(Experiment, CONFIGS / "experiment-smoke.toml"), 5, tmp_path)
    made: list[Path] = []

    def broken(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise RuntimeError

    def whole(folder: Path) -> None:
        assert not folder.exists()
        folder.mkdir()
        made.append(folder)

    with pytest.raises(RuntimeError):
        run._once("generator", broken)
    for _ in range(2):
        run._once("generator", whole)
    assert made == [tmp_path / "seed-5" / "generator"]
    (record,) = (json.loads(line) for line in (tmp_path / "seed-5" / RECORD).read_text().splitlines())
    assert record["stage"] == "generator"
    assert record["peak_gib"] > 0


def test_training_ends_with_the_model_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SeedRun(load_recipe(Experiment, CONFIGS / "demo-pair.toml"), 0, tmp_path)
    made: list[str] = []
    monkeypatch.setattr(run, "_once", lambda name, *_, **__: made.append(name))
    run.run(until="oprm")
    assert made == ["generator", "oprm"]
    made.clear()
    run.run()
    assert tuple(made[: len(TRAINED)]) == TRAINED
    assert len(made) > len(TRAINED)


def test_the_configs_are_whole_and_an_unknown_key_is_refused() -> None:
    for name in ("experiment", "experiment-smoke", "demo-pair"):
        load_recipe(Experiment, CONFIGS / f"{name}.toml")
    assert len(load_recipe(Experiment, CONFIGS / "experiment.toml").seeds) >= 3
    with pytest.raises(ConfigError, match="verifier"):
        load_recipe(Experiment, CONFIGS / "experiment.toml", ["verifier.sizes=3"])

"""The load tester's pure parts: schedules, percentiles, the knee, comparisons, workloads, reports."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from services.cli.bench.commands import app
from services.cli.bench.compare import compare, differing_settings, ratio_of
from services.cli.bench.knee import find_knee
from services.cli.bench.latency import QUANTILES, Array, Estimate, curve, name_of, percentiles, share
from services.cli.bench.plan import (
    TIMEOUT,
    TRANSPORT,
    ClosedLoop,
    OpenLoop,
    Plan,
    Sample,
    ScoreLoad,
    decode_samples,
    encode_samples,
)
from services.cli.bench.report import Report, describe_machine, read_report, write_report
from services.cli.bench.schedule import Arrivals, arrival_times, rising
from services.cli.bench.server import WAIT_VARIABLE, demo_environment
from services.cli.bench.summary import Phase, summarise
from services.cli.bench.workload import default_workload, read_workload, score_bodies, solve_bodies
from services.core.contracts import ScoreRequest, SolveRequest
from services.core.errors import InvalidRequest
from services.core.voting import Strategy

LOAD = ScoreLoad(workload="w.jsonl", solutions=2, fresh=None)


def plan(rate: float = 100.0, duration_s: float = 10.0, loop: OpenLoop | ClosedLoop | None = None) -> Plan:
    return Plan(
        url="http://127.0.0.1:1",
        load=LOAD,
        loop=loop or OpenLoop(arrivals=Arrivals.CONSTANT, rate=rate),
        duration_s=duration_s,
        timeout_s=30.0,
        seed=0,
        first=0,
        honour_retry_after=False,
    )


def sample(due: float, latency_s: float = 0.01, status: str = "200", **more: Any) -> Sample:
    return Sample(due=due, sent=due, done=due + latency_s, status=status, **more)


def phase(rate: float, good: int, late: int = 0, name: str = "", **refused: int) -> Phase:
    """A phase of 10 s of which so many requests are answered in time, so many late, and others by status."""
    outcomes = [(0.01, "200")] * good + [(2.0, "200")] * late
    outcomes += [(0.001, status.removeprefix("s")) for status, count in refused.items() for _ in range(count)]
    samples = [sample(10 * i / len(outcomes), *outcome) for i, outcome in enumerate(outcomes)]
    return summarise(name or f"{rate:g}", plan(rate), samples, slo_s=1.0)


# --- schedules -------------------------------------------------------------------------------------------------------


def test_a_constant_schedule_is_even_and_does_not_drift() -> None:
    times = arrival_times(Arrivals.CONSTANT, 30.0, 1000.0, seed=1)
    assert len(times) == 30_000
    assert times[29_997] == pytest.approx(29_997 / 30, abs=1e-12)


def test_poisson_arrivals_are_of_the_seed_and_independent_of_each_other() -> None:
    times = arrival_times(Arrivals.POISSON, 50.0, 400.0, seed=3)
    assert times == arrival_times(Arrivals.POISSON, 50.0, 400.0, seed=3)
    assert times != arrival_times(Arrivals.POISSON, 50.0, 400.0, seed=4)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(20_000, rel=0.05)
    # Exponential: the standard deviation is the mean, and one gap says nothing of the next.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.03
    assert times == sorted(times)
    assert times[-1] < 400.0


@pytest.mark.parametrize(("rate", "duration_s"), [(0.0, 1.0), (1.0, -1.0), (float("inf"), 1.0)])
def test_a_schedule_without_rate_or_duration_is_refused(rate: float, duration_s: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        arrival_times(Arrivals.CONSTANT, rate, duration_s, seed=0)


def test_a_sweep_rises_by_the_same_factor() -> None:
    shares = [found for found, _ in zip(rising(0.25, 3), range(10), strict=False)]
    assert shares[0] == 0.25
    assert shares[9] == pytest.approx(2.0)
    assert np.allclose(np.diff(np.log2(shares)), 1 / 3)


# --- percentiles -----------------------------------------------------------------------------------------------------


def test_percentiles_are_numpys_of_every_latency() -> None:
    values = np.random.default_rng(5).lognormal(3, 1, 20_000)
    found = percentiles(values)
    assert [found[name_of(q)].value for q in QUANTILES] == list(np.quantile(values, QUANTILES, method="inverted_cdf"))
    assert found["p99.9"].value in values
    assert found["max"] == Estimate(value=float(values.max()))


def test_a_percentile_with_hardly_a_request_beyond_it_has_no_interval() -> None:
    found = percentiles(np.arange(1.0, 301.0))
    assert found["p50"].low is not None
    assert found["p90"].low is not None
    assert found["p99"] == Estimate(value=297.0)
    assert percentiles(np.asarray([])) == {}


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth, held = 100 * np.log(2), 0
    for seed in range(200):
        values = np.random.default_rng(seed).exponential(100.0, 600)
        p50 = percentiles(values, seed)["p50"]
        held += p50.low is not None and p50.high is not None and p50.low <= truth <= p50.high
    assert 170 <= held <= 200


def test_neighbours_that_resemble_each_other_widen_the_interval() -> None:
    """A pause of two seconds in twenty is one event, however many requests waited for it."""
    paused = np.full(2000, 10.0)
    paused[800:1000] = np.linspace(2000, 10, 200)
    scattered = np.random.default_rng(0).permutation(paused)

    def width(values: Array) -> float:
        p99 = percentiles(values)["p99"]
        assert p99.low is not None
        assert p99.high is not None
        return p99.high - p99.low

    assert width(paused) > 2 * width(scattered)


def test_the_curve_ends_at_the_slowest() -> None:
    points = curve(np.arange(1.0, 1025.0))
    assert points[0] == (0.0, 1.0)
    assert points[-1] == (1.0, 1024.0)
    assert (0.5, 512.0) in points
    assert [latency for _, latency in points] == sorted(latency for _, latency in points)


def test_a_share_is_scaled_and_has_an_interval() -> None:
    found = share([True, False] * 100, 50.0)
    assert found.value == 25.0
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 25.0 <= found.high
    assert share([], 50.0) == Estimate(value=0.0)


# --- a phase ---------------------------------------------------------------------------------------------------------


def test_latency_counts_from_when_a_request_was_due_not_from_when_it_was_sent() -> None:
    late = Sample(due=1.0, sent=1.4, done=1.5, status="200")
    found = summarise("x", plan(), [late], slo_s=1.0)
    assert found.latency["max"].value == pytest.approx(500)
    assert found.lag.max == pytest.approx(400)
    assert found.lag.behind


def test_a_request_that_was_never_answered_is_in_the_latencies_and_a_refused_one_is_not() -> None:
    samples = [sample(0.0), sample(0.1, 30.0, TIMEOUT), sample(0.2, 0.001, "429"), sample(0.3, 0.001, TRANSPORT)]
    found = summarise("x", plan(duration_s=1.0), samples, slo_s=1.0)
    assert found.latency["max"].value == pytest.approx(30_000)
    assert found.refused["max"].value == pytest.approx(1)
    assert found.statuses == {"200": 1, "429": 1, "timeout": 1, "transport": 1}
    assert found.errors == {"timeout": 1, "transport": 1}
    assert (found.offered, found.throughput.value, found.goodput.value) == (4.0, 1.0, 1.0)


def test_the_parts_of_an_answers_time_add_up_to_it() -> None:
    parts = {"tokenize": 2.0, "queue": 30.0, "inference": 40.0}
    found = summarise("x", plan(), [sample(0.0, 0.1, parts=parts), sample(0.1, 0.1, parts=parts)], slo_s=1.0)
    assert found.parts == {**parts, "rest": pytest.approx(28.0)}
    assert sum(found.parts.values()) == pytest.approx(found.latency["p50"].value)


def test_waste_and_batches_are_counted() -> None:
    samples = [
        sample(0.0, tokens=100, tokens_computed=100, batch_tokens=100, batch_solutions=1),
        sample(0.1, tokens=300, tokens_computed=0, batch_tokens=0, batch_solutions=8),
        sample(0.2, 0.001, "429"),
    ]
    found = summarise("x", plan(duration_s=10.0), samples, slo_s=1.0)
    assert found.waste == 0.25
    assert found.tokens_a_second == 40.0
    assert found.waste_shares.counts == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    counted = dict(zip(found.batch_solutions.edges, found.batch_solutions.counts, strict=False))
    assert (counted[1], counted[8]) == (1, 1)
    assert sum(found.batch_tokens.counts) == 2


def test_a_closed_loops_rate_is_of_the_time_until_its_last_answer() -> None:
    samples = [sample(0.0, 6.0), sample(6.0, 6.0)]
    found = summarise("x", plan(duration_s=10.0, loop=ClosedLoop(callers=1)), samples, slo_s=1.0)
    assert found.throughput.value == pytest.approx(2 / 12)


def test_samples_cross_the_process_boundary_whole() -> None:
    samples = [sample(0.5, 0.1, "429", tries=3), sample(1.0, parts={"queue": 1.5}, tokens=7)]
    assert decode_samples(encode_samples(samples)) == samples


# --- the knee --------------------------------------------------------------------------------------------------------


def test_the_knee_is_the_highest_rate_that_keeps_the_objective() -> None:
    phases = [phase(10, 100), phase(20, 198, s429=2), phase(40, 300, s429=100), phase(80, 290, s429=500, s504=10)]
    knee = find_knee(phases, slo_ms=1000)
    assert knee.rate == 20.0
    assert knee.peak == pytest.approx(30.0)
    assert knee.kept == pytest.approx(29 / 30)
    assert knee.errors == {"504": 10}


def test_a_rate_that_asks_for_less_than_the_peak_does_not_count_as_past_it() -> None:
    phases = [phase(10, 100), phase(20, 180, s429=20), phase(40, 400, late=50), phase(60, 360, late=240)]
    assert find_knee(phases, slo_ms=1000).kept == pytest.approx(36 / 40)


@pytest.mark.parametrize(
    ("last", "rate"),
    [
        pytest.param(phase(20, 195, late=5), 10.0, id="the 99th percentile is late"),
        pytest.param(phase(20, 189, s429=11), 10.0, id="too many are refused"),
        pytest.param(phase(20, 191, s429=9), 20.0, id="one in twenty may be refused"),
        pytest.param(phase(20, 199, late=1), 20.0, id="one in two hundred may be late"),
    ],
)
def test_a_rate_keeps_it_when_goodput_and_the_99th_percentile_do(last: Phase, rate: float) -> None:
    assert find_knee([last, phase(10, 100)], slo_ms=1000).rate == rate


def test_a_sweep_may_have_no_knee_or_nothing_beyond_it() -> None:
    overwhelmed = find_knee([phase(10, 0, late=100)], slo_ms=1000)
    assert (overwhelmed.rate, overwhelmed.peak, overwhelmed.kept) == (None, 0.0, None)
    idle = find_knee([phase(10, 100)], slo_ms=1000)
    assert (idle.rate, idle.kept) == (10.0, None)
    with pytest.raises(ValueError, match="phases"):
        find_knee([], slo_ms=1000)


# --- comparisons -----------------------------------------------------------------------------------------------------


def report(phases: Sequence[Phase], **more: Any) -> Report:
    given = {"settings": {"seed": 0}, "machine": {"cpu": "x", "load_before": 0.1}, **more}
    return Report(
        kind="verifier",
        date="2026-11-24T00:00:00+00:00",
        version="0",
        server={"url": "u"},
        slo_ms=1000.0,
        peak=None,
        phases=list(phases),
        knee=None,
        **given,
    )


def drawn(name: str, scale: float, seed: int) -> Phase:
    latencies = np.random.default_rng(seed).exponential(scale, 2000)
    samples = [sample(i / 200, float(latency)) for i, latency in enumerate(latencies)]
    return summarise(name, plan(200.0), samples, slo_s=1.0)


def test_a_slower_service_is_told_from_an_equal_one() -> None:
    old = report([drawn("a", 0.1, 1), drawn("only there", 0.1, 2)])
    ratios = {ratio.figure: ratio for ratio in compare(report([drawn("a", 0.15, 3), drawn("only here", 1, 4)]), old)}
    assert ratios["p50"].ratio.value == pytest.approx(1.5, rel=0.15)
    assert ratios["p50"].differs
    assert {ratio.phase for ratio in ratios.values()} == {"a"}
    same = {ratio.figure: ratio for ratio in compare(report([drawn("a", 0.1, 5)]), old)}
    assert not same["p50"].differs


def test_a_ratio_has_the_uncertainty_of_both() -> None:
    found = ratio_of(Estimate(value=20, low=10, high=40), Estimate(value=10, low=5, high=20))
    assert found.value == 2.0
    assert found.low == pytest.approx(2 / 2**2**0.5)
    assert found.high == pytest.approx(2 * 2**2**0.5)
    exact = Estimate(value=10, low=10, high=10)
    assert ratio_of(exact, exact) == Estimate(value=1.0, low=1.0, high=1.0)
    assert ratio_of(Estimate(value=1), exact).low is None
    assert ratio_of(Estimate(value=1, low=0, high=2), exact).low is None


def test_what_makes_two_reports_hard_to_compare_is_named() -> None:
    one = report([], settings={"seed": 0, "solutions": 8})
    other = report([], settings={"seed": 1, "solutions": 8}, machine={"cpu": "y", "load_before": 2.0})
    assert differing_settings(one, other) == ["cpu", "seed"]
    assert differing_settings(one, one) == []


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = report([phase(10, 100, late=3, s429=5)], machine=describe_machine())
    write_report(written, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json") == written


@pytest.mark.parametrize(
    "content", [pytest.param(None, id="no file"), pytest.param("{", id="no JSON"), pytest.param("{}", id="no report")]
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    with pytest.raises(InvalidRequest):
        read_report(tmp_path / "r.json")


def test_the_workload_that_comes_with_it_makes_valid_requests() -> None:
    items = read_workload(default_workload(), 16)
    score, solve = score_bodies(items, 16, 0, "1"), solve_bodies(items, 4, Strategy.WEIGHTED, 64, 0)
    for number in range(len(items)):
        assert len(ScoreRequest.model_validate_json(score(number)).solutions) == 16
        assert SolveRequest.model_validate_json(solve(number)).n == 4
    assert len({json.loads(solve(n))["sampling"]["seed"] for n in range(len(items))}) == len(items)


def test_fresh_bodies_never_repeat_and_others_repeat_in_the_order_of_the_seed() -> None:
    items = read_workload(default_workload(), 1)
    fresh = score_bodies(items, 1, 0, "123")
    problems = [json.loads(fresh(number))["problem"] for number in range(3 * len(items))]
    assert len(set(problems)) == len(problems)
    # From its first characters on: what is shared with another request is the template alone.
    assert len({problem[:12] for problem in problems}) == len(problems)
    as_is = score_bodies(items, 1, 0, None)
    assert as_is(0) == as_is(len(items))
    assert {json.loads(as_is(n))["problem"] for n in range(len(items))} == {item.problem for item in items}
    assert [as_is(n) for n in range(9)] != [score_bodies(items, 1, 1, None)(n) for n in range(9)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param('{"problem": "p", "solutions": ["a", "b"]}\n{"problem": 1}', "line 2", id="no item"),
        pytest.param('\n{"problem": "p", "solutions": ["a"]}', "line 2 has 1 solutions; 2", id="too few solutions"),
        pytest.param('{"problem": " ", "solutions": ["a", "b"]}', "line 1", id="blank"),
        pytest.param("\n", "no problem", id="empty"),
    ],
)
def test_a_workload_that_does_not_do_is_refused_by_line(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "w.jsonl").write_text(content)
    with pytest.raises(InvalidRequest, match=told):
        read_workload(tmp_path / "w.jsonl", 2)


def test_the_demos_server_is_told_the_objective_unless_the_environment_says_otherwise() -> None:
    assert demo_environment(1000.0, {})[WAIT_VARIABLE] == "0.4"
    assert demo_environment(1000.0, {WAIT_VARIABLE: "7"})[WAIT_VARIABLE] == "7"


def test_without_its_libraries_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in ("verifier", "solve"):
        done = CliRunner().invoke(app, [command, "--rate", "1"])
        assert done.exit_code == 2
        assert "numpy and matplotlib not installed" in done.output
        assert ".[bench]" in done.output

"""The checkers of a soak find what they look for."""

import dataclasses

import pytest

from tests.soak.invariants import BROKEN, Asked, JobSeen, Reading, Record, broken

SAMPLES = tuple((name, seed) for name in ("a", "b") for seed in (1, 2))
JOB = JobSeen("j", ("a", "b"), (), 2, "completed", 0, SAMPLES)


def sound() -> Record:
    flat = [Reading(float(at), 100_000 + at % 3, 10, 20 + at % 2) for at in range(0, 600, 5)]
    asked = [Asked(1.0, 2.0, "200"), Asked(5.0, 6.0, BROKEN), Asked(7.0, 8.0, "429")]
    return Record(3, asked, [JOB], [(4.0, 6.0)], {"generator-0.1": flat}, {"inflight": 0.0})


def test_a_sound_soak_breaks_nothing() -> None:
    assert broken(sound()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"samples": SAMPLES[1:]}, "1 of 2 samples of a", id="a lost sample"),
        pytest.param({"samples": ()}, "0 of 2 samples of b", id="no table"),
        pytest.param({"samples": (*SAMPLES[:1], *SAMPLES[:1], *SAMPLES[2:])}, "a sample of a twice", id="a duplicate"),
        pytest.param({"samples": (*SAMPLES, ("a", 3))}, "3 of 2 samples of a", id="a sample too many"),
        pytest.param({"samples": (*SAMPLES, ("z", 1))}, "samples of z", id="a foreign problem"),
        pytest.param({"status": "running"}, "is running", id="a job without an end"),
        pytest.param({"failed": 1}, "1 failed items", id="a failed item"),
        pytest.param({"poison": ("b",)}, "not completed_with_errors", id="poison that harmed nobody"),
    ],
)
def test_a_job_that_is_not_whole_is_told(change: dict[str, object], said: str) -> None:
    record = sound()
    record.jobs = [dataclasses.replace(JOB, **change)]  # type: ignore[arg-type]
    assert any(said in line for line in broken(record))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param(Asked(1.0, 2.0, "500"), "ended with 500", id="a status that may not be"),
        pytest.param(Asked(1.0, 2.0, BROKEN), "ended with broken", id="a broken connection without an outage"),
    ],
)
def test_a_request_with_a_wrong_end_is_told(asked: Asked, said: str) -> None:
    record = sound()
    record.asked[0] = asked
    assert any(said in line for line in broken(record))


def test_a_request_without_an_end_is_told() -> None:
    record = sound()
    record.asked.pop()
    assert broken(record) == ["3 requests were sent, 2 ended"]


@pytest.mark.parametrize("what", ["rss_kib", "threads", "descriptors"])
def test_what_a_process_takes_more_and_more_of_is_told(what: str) -> None:
    record, growth = sound(), {"rss_kib": 200.0, "threads": 0.05, "descriptors": 0.1}
    flat = record.readings["generator-0.1"]
    leaking = [dataclasses.replace(r, **{what: getattr(r, what) + r.at * growth[what]}) for r in flat]
    record.readings = {"generator-0.1": leaking}
    assert [line for line in broken(record) if what in line] == broken(record) != []


@pytest.mark.parametrize(("seconds", "said"), [(20, []), (60, ["threads", "descriptors"])])
def test_the_start_of_a_life_is_no_leak_and_a_minute_tells_of_all_but_memory(seconds: int, said: list[str]) -> None:
    record = sound()
    rising = [Reading(at, 1e5 + 1e4 * at, 10 + at, 20 + at * 2) for at in range(seconds)]
    record.readings = {"worker-0.1": rising}
    assert [line.split()[1] for line in broken(record)] == said


def test_a_step_that_is_taken_once_is_no_leak() -> None:
    record = sound()
    flat = record.readings["generator-0.1"]
    record.readings = {"worker-0.1": [dataclasses.replace(r, rss_kib=1e5 + 1e5 * (r.at > 150)) for r in flat]}
    assert broken(record) == []


def test_a_worker_may_load_what_makes_reports_late_and_no_more() -> None:
    record = sound()
    flat = record.readings["generator-0.1"]
    late = flat[-1].at * 0.7
    for rise, said in ((240e3, 0), (600e3, 1)):
        record.readings = {"worker-0.1": [dataclasses.replace(r, rss_kib=1e5 + rise * (r.at > late)) for r in flat]}
        assert len(broken(record)) == said
    record.readings = {"generator-0.1": [dataclasses.replace(r, rss_kib=1e5 + 240e3 * (r.at > late)) for r in flat]}
    assert len(broken(record)) == 1


@pytest.mark.parametrize("value", [1.0, None])
def test_a_gauge_that_is_not_0_or_not_told_is_told(value: float | None) -> None:
    record = sound()
    record.gauges["queue"] = value
    assert broken(record) == [f"queue is {value}"]


def test_stacks_deaths_and_differing_answers_are_told() -> None:
    record = sound()
    record.stacks, record.deaths, record.unsteady = ["x"], ["y"], ["z"]
    assert len(broken(record)) == 3

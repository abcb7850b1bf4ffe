"""When the verifier's queue refuses: too many tokens, or a wait that is too long by how fast they have gone."""

import pytest
from prometheus_client import CollectorRegistry

from services.core.errors import Overloaded
from services.verifier.admission import Admission
from services.verifier.metrics import VerifierMetrics


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(max_wait_s: float | None = 1.0, max_tokens: int = 100_000) -> tuple[Admission, Clock]:
    """An admission whose device has shown that it does 1000 tokens a second."""
    clock = Clock()
    admission = Admission(VerifierMetrics(CollectorRegistry()), max_tokens, max_wait_s, clock)
    admission.formed(1000)
    clock.now += 1.0
    admission.ended(1000, ran=1000)
    return admission, clock


def refuses(admission: Admission, tokens: int, *, background: bool = False) -> bool:
    try:
        admission.require_room(tokens, background=background)
    except Overloaded:
        return True
    return False


def test_what_would_wait_longer_than_allowed_is_refused() -> None:
    admission, _ = made()
    admission.add(600, background=False)
    assert not refuses(admission, 400)
    assert refuses(admission, 401)


def test_a_refusal_tells_when_the_queue_will_have_gone() -> None:
    admission, _ = made()
    admission.add(3000, background=False)
    with pytest.raises(Overloaded) as refused:
        admission.require_room(1, background=False)
    assert refused.value.retry_after_s == pytest.approx(3.0)


def test_the_batch_that_runs_counts_by_what_is_left_of_it() -> None:
    admission, clock = made()
    admission.formed(2000)
    assert refuses(admission, 1)
    clock.now += 1.5
    assert not refuses(admission, 500)
    assert refuses(admission, 510)


def test_a_batch_behind_another_counts_from_when_that_one_ended() -> None:
    admission, clock = made()
    admission.formed(800)
    admission.formed(800)
    clock.now += 0.8
    admission.ended(800, ran=800)
    assert not refuses(admission, 200)
    assert refuses(admission, 210)


def test_an_idle_device_takes_a_request_of_any_size() -> None:
    admission, _ = made(max_tokens=100)
    assert not refuses(admission, 10**6)


def test_nobody_is_refused_for_a_guess() -> None:
    admission = Admission(VerifierMetrics(CollectorRegistry()), 100_000, 0.001, Clock())
    admission.add(50_000, background=False)
    assert not refuses(admission, 10_000)


def test_background_work_waits_as_long_as_it_takes_and_keeps_nobody_out() -> None:
    admission, _ = made()
    admission.add(50_000, background=True)
    assert not refuses(admission, 20_000, background=True)
    assert not refuses(admission, 1000)
    assert refuses(admission, 50_001, background=True)


def test_without_a_bound_on_the_wait_only_tokens_count() -> None:
    admission, _ = made(max_wait_s=None)
    admission.add(99_000, background=False)
    assert not refuses(admission, 1000)
    assert refuses(admission, 1001)


def test_what_did_not_run_says_nothing_of_the_devices_speed() -> None:
    admission, clock = made()
    admission.formed(5000)
    clock.now += 0.001
    admission.ended(5000, ran=0)
    admission.add(1000, background=False)
    assert refuses(admission, 1)

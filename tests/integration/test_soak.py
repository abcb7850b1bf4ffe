"""A short soak; `python -m tests.soak` is the long one, which alone judges memory."""

from pathlib import Path

import pytest

from tests.soak.run import soak

pytestmark = [pytest.mark.processes, pytest.mark.alone, pytest.mark.timeout(600)]


def test_nothing_is_lost_among_random_faults(tmp_path: Path) -> None:
    outcome = soak(tmp_path, minutes=1.0, every_s=5.0, seed=7)
    assert outcome.broken == []
    assert len(outcome.faults) >= 8
    assert outcome.record.jobs
    assert sum(each.status == "200" for each in outcome.record.asked) > 50

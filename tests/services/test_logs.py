"""What a log line may hold: the stack of a bug of ours, never the text of a caller."""

import json
import subprocess
import sys

import pytest

_PROBE = """
import structlog
from services.runtime.logs import configure_logging
from services.runtime.settings import RuntimeSettings

configure_logging(RuntimeSettings(log_format={format!r}))

def answer(problem):
    raise RuntimeError("a bug")

try:
    answer("cana" + "ry")
except RuntimeError:
    structlog.get_logger("e2h.test").exception("unhandled")
"""


def logged(log_format: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(format=log_format)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stderr


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_stack_of_a_bug_shows_no_text_of_a_caller(log_format: str) -> None:
    text = logged(log_format)
    assert "RuntimeError" in text
    assert "canary" not in text


def test_a_json_log_is_one_line_an_event() -> None:
    (line,) = logged("json").splitlines()
    assert json.loads(line)["event"] == "unhandled"

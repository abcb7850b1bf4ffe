"""`e2h keys` as a person uses it: a key is shown once, listed without its secret, and gone when revoked."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli.doctor import _keys
from services.cli.main import app
from services.runtime.auth import KeyRing
from services.runtime.keys import holds_key, prefix_of, read_keys
from services.runtime.settings import RuntimeSettings


def keys(*arguments: str, file: Path) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments, "--file", str(file)], env={"COLUMNS": "200"})


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = keys("create", "--tenant", "acme", "--scope", "score", "--scope", "solve", "--rate", "60/minute", file=file)
    assert made.exit_code == 0
    key = made.output.strip()
    ring = KeyRing(file)
    ring.load()
    record = ring.find(key)
    assert record is not None
    assert (record.tenant, record.scopes, record.rate, record.expires) == (
        "acme",
        ("score", "solve"),
        "60/minute",
        None,
    )
    listed = keys("list", file=file)
    assert listed.exit_code == 0
    assert all(word in listed.output for word in (record.prefix, "acme", "score, solve", "60/minute", "never"))
    assert not holds_key(listed.output)
    assert record.sha256 not in listed.output
    assert keys("revoke", record.prefix, file=file).exit_code == 0
    assert read_keys(file) == ()


def test_a_key_may_end_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys("create", "--tenant", "acme", "--scope", "score", "--expires-in-days", "30", file=file)
    (record,) = read_keys(file)
    assert record.expires is not None
    assert 29 <= (record.expires - record.created).days <= 30


def test_the_file_may_come_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    arguments = ["keys", "create", "--tenant", "acme", "--scope", "admin"]
    made = CliRunner().invoke(app, arguments, env={"E2H_API_KEYS_FILE": str(file)})
    assert prefix_of(made.output.strip()) == read_keys(file)[0].prefix


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("create", "--tenant", "acme", "--scope", "everything"), id="a scope that is none"),
        pytest.param(("create", "--tenant", "A cme", "--scope", "score"), id="a tenant that is none"),
        pytest.param(("create", "--tenant", "acme", "--scope", "score", "--rate", "fast"), id="a rate that is none"),
        pytest.param(("create", "--tenant", "acme"), id="no scope"),
        pytest.param(("revoke", "aaaaaaaa"), id="a key that is not there"),
    ],
)
def test_what_makes_no_sense_changes_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / "keys.json"
    keys("create", "--tenant", "acme", "--scope", "score", file=file)
    before = file.read_text()
    done = keys(*arguments, file=file)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert not holds_key(done.output)
    assert file.read_text() == before


@pytest.mark.parametrize("content", [None, "{"], ids=["no file", "a broken file"])
def test_a_file_that_cannot_be_read_is_told_in_a_line(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    done = keys("list", file=file)
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "state", "found"),
    [
        pytest.param({}, "note", "none asked for", id="loopback"),
        pytest.param({"host": "10.0.0.1"}, "wrong", "without API keys", id="beyond it"),
        pytest.param(
            {"host": "10.0.0.1", "insecure": True}, "note", "listens on 10.0.0.1", id="beyond it, and told so"
        ),
        pytest.param({"api_keys_file": "keys.json"}, "ok", "1 in ", id="with keys"),
        pytest.param({"api_keys_file": "gone.json"}, "wrong", "does not exist", id="with none there"),
    ],
)
def test_the_doctor_says_how_the_door_stands(tmp_path: Path, settings: dict[str, Any], state: str, found: str) -> None:
    keys("create", "--tenant", "acme", "--scope", "score", file=tmp_path / "keys.json")
    if "api_keys_file" in settings:
        settings = {**settings, "api_keys_file": tmp_path / settings["api_keys_file"]}
    told = _keys(RuntimeSettings(**settings))
    assert told.state == state
    assert found in told.found
    assert (told.mend == "") == (state != "wrong")

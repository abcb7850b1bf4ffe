"""The file of API keys: what is kept of a key, what is refused, and who may change it when."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.runtime.keys import (
    KeyRecord,
    KeysFileError,
    change_keys,
    digest,
    holds_key,
    masked,
    new_key,
    parse_rate,
    prefix_of,
    read_keys,
)


def added(path: Path, tenant: str = "acme") -> str:
    key, record = new_key(tenant, ["score"])
    change_keys(path, lambda present: (*present, record))
    return key


def test_a_key_has_256_random_bits_behind_a_public_prefix() -> None:
    key, record = new_key("acme", ["score", "solve", "score"])
    assert re.fullmatch(r"e2h_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", key)
    assert (prefix_of(key), record.sha256, record.scopes) == (record.prefix, digest(key), ("score", "solve"))
    assert new_key("acme", ["score"])[0] != key


def test_nothing_that_is_kept_tells_the_key(tmp_path: Path) -> None:
    key = added(tmp_path / "keys.json")
    secret = key.split("_", 2)[2]
    (record,) = read_keys(tmp_path / "keys.json")
    assert secret not in (tmp_path / "keys.json").read_text() + repr(record) + str(record) + record.model_dump_json()


def test_a_new_file_is_its_owners_and_a_changed_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    added(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    added(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["keys.json"]


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    added(tmp_path / "real.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    added(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert len(read_keys(tmp_path / "real.json")) == 2


def test_no_key_is_lost_when_many_change_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: added(path), range(24)))
    assert {record.prefix for record in read_keys(path)} == {prefix_of(key) for key in made}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="a list"),
        pytest.param('{"version": 2, "keys": []}', id="a later version"),
        pytest.param('{"keys": [{"prefix": "canary"}]}', id="a record with too little"),
        pytest.param('{"keys": [], "strange": "canary"}', id="a strange field"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_and_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(KeysFileError) as refused:
        read_keys(path)
    assert "canary" not in str(refused.value)
    with pytest.raises(KeysFileError):
        added(path)
    assert path.read_text() == content


def test_two_keys_of_one_prefix_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    added(path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps({"keys": document["keys"] * 2}))
    with pytest.raises(KeysFileError, match="two keys with one prefix"):
        read_keys(path)


@pytest.mark.parametrize(
    ("tenant", "scopes", "rate"),
    [("", ["score"], None), ("Ac me", ["score"], None), ("acme", ["everything"], None), ("acme", ["score"], "fast")],
)
def test_a_key_that_means_nothing_is_not_made(tenant: str, scopes: list[str], rate: str | None) -> None:
    with pytest.raises(ValidationError):
        new_key(tenant, scopes, rate=rate)  # type: ignore[arg-type]


def test_admin_may_everything_and_others_what_they_say() -> None:
    _, score = new_key("acme", ["score"])
    _, admin = new_key("acme", ["admin"])
    assert (score.allows("score"), score.allows("solve"), score.allows("admin")) == (True, False, False)
    assert admin.allows("metrics")


def test_a_key_ends_when_it_is_said_to() -> None:
    now = datetime.now(UTC)
    _, record = new_key("acme", ["score"], expires=now + timedelta(hours=1))
    assert isinstance(record, KeyRecord)
    assert (record.expired(now), record.expired(now + timedelta(hours=1))) == (False, True)


@pytest.mark.parametrize(
    ("text", "amount", "seconds"), [("60/minute", 60, 60), ("5/15 minutes", 5, 900), ("1/second", 1, 1)]
)
def test_a_rate_is_a_number_in_a_time(text: str, amount: int, seconds: int) -> None:
    rate = parse_rate(text)
    assert (rate.amount, rate.get_expiry()) == (amount, seconds)


@pytest.mark.parametrize("text", ["", "60", "0/minute", "-1/minute", "60/fortnight", "60/minute; 1/second", "9" * 99])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a rate as"):
        parse_rate(text)


def test_a_key_anywhere_in_a_text_is_masked_down_to_its_prefix() -> None:
    key, record = new_key("acme", ["score"])
    text = f'{{"event": "Bearer {key}", "other": "{key}"}}'
    assert holds_key(text)
    assert masked(text) == f'{{"event": "Bearer e2h_{record.prefix}_***", "other": "e2h_{record.prefix}_***"}}'
    assert masked("e2h_generator_settings") == "e2h_generator_settings"

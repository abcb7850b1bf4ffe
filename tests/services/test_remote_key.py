"""Commands that ask a server send the key of `E2H_API_KEY`, and none without it."""

import pytest

from services.cli.remote import headers


@pytest.mark.parametrize(("value", "sent"), [("e2h_k", "Bearer e2h_k"), (" e2h_k\n", "Bearer e2h_k"), ("", None)])
def test_the_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch, value: str, sent: str | None) -> None:
    monkeypatch.setenv("E2H_API_KEY", value)
    assert headers().get("authorization") == sent

"""Addresses of replicas in the orchestrator's settings."""

import pytest
from pydantic import ValidationError

from services.orchestrator.settings import OrchestratorSettings

ONE, TWO = "http://a:1", "https://b/base"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        pytest.param(ONE, (ONE,), id="one"),
        pytest.param(f"{ONE},{TWO}", (ONE, TWO), id="two"),
        pytest.param(f" {ONE} , {TWO} ", (ONE, TWO), id="spaces"),
        pytest.param(f'["{ONE}", "{TWO}"]', (ONE, TWO), id="JSON"),
    ],
)
@pytest.mark.parametrize("field", ["generator_url", "verifier_url"])
def test_one_address_or_several_are_read(
    monkeypatch: pytest.MonkeyPatch, field: str, text: str, urls: tuple[str, ...]
) -> None:
    monkeypatch.setenv(f"E2H_ORCHESTRATOR_{field.upper()}", text)
    assert getattr(OrchestratorSettings(), field) == urls


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a:1", id="no scheme"),
        pytest.param("http://", id="no host"),
        pytest.param("http://a:99999", id="no port"),
        pytest.param(f"{ONE},", id="an empty one"),
        pytest.param(f"{ONE},{ONE}", id="one twice"),
        pytest.param("[]", id="none"),
        pytest.param("[1]", id="a number"),
        pytest.param("[", id="no JSON"),
    ],
)
def test_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("E2H_ORCHESTRATOR_GENERATOR_URL", text)
    with pytest.raises(ValidationError) as refused:
        OrchestratorSettings()
    assert refused.value.errors()[0]["loc"] == ("generator_url",)
    monkeypatch.delenv("E2H_ORCHESTRATOR_GENERATOR_URL")
    assert OrchestratorSettings().generator_url == ("http://127.0.0.1:8101",)


def test_openai_servers_have_replicas_too() -> None:
    settings = OrchestratorSettings.model_validate({"openai_base_url": f"{ONE},{TWO}", "openai_model": "m"})
    assert settings.openai_base_url == (ONE, TWO)

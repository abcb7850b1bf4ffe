"""The small scripts of the images: secrets made once, models fetched once, a probe that is never wrong about 503."""

import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.runtime.redis import shown
from tests.deploy.reading import ROOT, module

SECRETS = module("deploy/docker/make_secrets.py")
MODELS = module("deploy/docker/fetch_models.py")
PROBE = module("deploy/docker/probe.py")


class TestSecrets:
    def test_are_made_once_and_never_changed(self, tmp_path: Path) -> None:
        SECRETS.make(tmp_path)
        first = {path.name: path.read_text() for path in tmp_path.iterdir()}
        SECRETS.make(tmp_path)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == first
        assert first.keys() == {"redis_password", "grafana_password", "E2H_REDIS_URL", "E2H_JOBS_REDIS_URL"}

    def test_differ_from_one_installation_to_another(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            SECRETS.make(tmp_path / name)
        assert (tmp_path / "a/redis_password").read_text() != (tmp_path / "b/redis_password").read_text()

    def test_the_address_of_redis_is_one(self, tmp_path: Path) -> None:
        SECRETS.make(tmp_path)
        url = SecretStr((tmp_path / "E2H_REDIS_URL").read_text())
        assert shown(url) == "redis://redis:6379/0"
        assert f":{(tmp_path / 'redis_password').read_text()}@" in url.get_secret_value()

    @pytest.mark.skipif(os.getuid() == 0, reason="root may write anything")
    def test_are_not_changed_by_hand(self, tmp_path: Path) -> None:
        SECRETS.make(tmp_path)
        with pytest.raises(PermissionError):
            (tmp_path / "redis_password").write_text("")


class TestModels:
    def test_a_model_is_fetched_once_for_each_commit(self, tmp_path: Path) -> None:
        asked: list[tuple[str, str | None]] = []

        def download(model: str, commit: str | None, place: Path) -> None:
            asked.append((model, commit))
            place.mkdir(parents=True, exist_ok=True)

        told = [MODELS.fetch(tmp_path, wanted, download) for wanted in ("a/b@", "a/b@", "a/b@c0ffee", "a/b@c0ffee")]
        assert told == [True, False, True, False]
        assert asked == [("a/b", None), ("a/b", "c0ffee")]

    def test_a_download_that_fails_is_tried_again(self, tmp_path: Path) -> None:
        def broken(model: str, commit: str | None, place: Path) -> None:
            place.mkdir(parents=True)
            raise OSError

        with pytest.raises(OSError):  # noqa: PT011 - whatever the hub's client raises
            MODELS.fetch(tmp_path, "a/b", broken)
        assert MODELS.fetch(tmp_path, "a/b", lambda *_: None)

    @pytest.mark.parametrize("wanted", ["", "/srv/e2h/models/generator@", "@c0ffee"])
    def test_a_model_of_the_image_is_left_alone(self, tmp_path: Path, wanted: str) -> None:
        assert not MODELS.fetch(tmp_path, wanted, lambda *_: pytest.fail("fetched"))

    def test_a_name_that_leads_elsewhere_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="out of the folder"):
            MODELS.fetch(tmp_path / "models", "../secrets", lambda *_: pytest.fail("fetched"))

    @pytest.mark.parametrize("name", ["model.bin", "pytorch_model.pt", "modeling_qwen.py", "model.ckpt", "x.pkl"])
    def test_neither_pickles_nor_code_are_fetched(self, name: str) -> None:
        assert not any(Path(name).match(pattern) for pattern in MODELS.PATTERNS)


@pytest.fixture
def answering() -> Iterator[tuple[list[int], int]]:
    """A server that answers with the first of a list of statuses, and its port."""
    status = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield status, server.server_port
        server.shutdown()
        thread.join()


def test_the_probe_takes_200_alone_for_ready(answering: tuple[list[int], int]) -> None:
    status, port = answering
    assert PROBE.ready(port)
    status[0] = 503
    assert not PROBE.ready(port)


def test_the_probe_takes_a_port_where_nobody_listens_for_not_ready(answering: tuple[list[int], int]) -> None:
    assert not PROBE.ready(1)


SCRIPTS = ["deploy/verify-compose.sh", "deploy/local-images.sh", "deploy/redis/start.sh"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_shell_script_is_one(script: str) -> None:
    shell = "bash" if "bash" in (ROOT / script).read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", script], cwd=ROOT, check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", script], cwd=ROOT, check=True)


def test_the_rules_and_the_scraping_are_what_prometheus_reads() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (deploy/verify-compose.sh loads the rules into a real prometheus)")
    subprocess.run(["promtool", "check", "rules", "rules.yml"], cwd=ROOT / "deploy/prometheus", check=True)

"""The redis of `e2h up --jobs`: its data outlives it, and it does not outlive us."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from services.core.errors import ModelLoadError
from services.orchestrator.jobs.embedded import embedded_redis
from tests.integration.processes import ROOT

_HOLDS = """
import sys, time
from pathlib import Path
from services.orchestrator.jobs.embedded import embedded_redis
with embedded_redis(Path(sys.argv[1])) as url:
    print(url.get_secret_value(), flush=True)
    time.sleep(600)
"""


def test_what_it_kept_is_there_again(tmp_path: Path) -> None:
    with embedded_redis(tmp_path / "jobs") as url, Redis.from_url(url.get_secret_value()) as client:
        client.set("k", "v")
        assert client.waitaof(1, 0, 5000) == [1, 0]
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with embedded_redis(tmp_path / "jobs") as url, Redis.from_url(url.get_secret_value()) as client:
        assert client.get("k") == b"v"


def test_two_do_not_share_a_directory(tmp_path: Path) -> None:
    with embedded_redis(tmp_path), pytest.raises(ModelLoadError, match="same directory"), embedded_redis(tmp_path):
        pass
    with embedded_redis(tmp_path):
        pass


def test_it_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    url = holder.stdout.readline().strip()
    with Redis.from_url(url) as client:
        server = int(client.info("server")["process_id"])
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline, "the server outlived its process"
        time.sleep(0.05)
    with Redis.from_url(url) as client, pytest.raises((RedisError, OSError)):
        client.ping()

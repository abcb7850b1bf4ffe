"""A door of its own for each client of one server, on loopback: who connects when, also while there is no server."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

from tests.faulty_proxy import serving


class CountingDoors:
    """`count` ports that forward to `port` once they are opened; until then they close what comes."""

    def __init__(self, count: int, port: int) -> None:
        self._count = count
        self._upstream = port
        self._open = threading.Event()
        self._forwarding: set[asyncio.Task[None]] = set()
        self.ports: list[int] = []
        self.tried: list[list[float]] = [[] for _ in range(count)]  # moments, of each door while it was closed
        self.total = 0  # connections since the doors were opened
        self.now = 0  # of them, those that are there
        self.most = 0  # at once

    def open(self) -> None:
        """Forward from now on."""
        self._open.set()

    @contextlib.contextmanager
    def running(self) -> Iterator["CountingDoors"]:
        """Serve in a thread of its own for the length of the block."""
        with serving(self._serve):
            yield self

    async def _serve(self, listening: threading.Event, ending: threading.Event) -> None:
        servers = [await self._door(moments) for moments in self.tried]
        self.ports = [server.sockets[0].getsockname()[1] for server in servers]
        listening.set()
        await asyncio.to_thread(ending.wait)
        for server in servers:
            server.close()
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    async def _door(self, moments: list[float]) -> asyncio.Server:
        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._open.is_set():
                task = asyncio.create_task(self._forward(reader, writer))
                self._forwarding.add(task)
                task.add_done_callback(self._forwarding.discard)
            else:
                moments.append(time.monotonic())
                writer.close()

        return await asyncio.start_server(connection, "127.0.0.1", 0)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.total += 1
        self.now += 1
        self.most = max(self.most, self.now)
        ends = [writer]
        try:
            with contextlib.suppress(OSError):
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
                ends.append(up_writer)
                await asyncio.gather(_pump(up_reader, writer), _pump(reader, up_writer))
        finally:
            self.now -= 1
            for end in ends:
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """To the end of the one side, which then is the end of the other."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()

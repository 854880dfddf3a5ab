"""A line between client and server that can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.server.harness import Address


class Proxy:
    """Passes bytes on.

    Attributes:
        url: what the server is reached as through it.
        server: where connections made from now on lead.
        connections: how many were made so far.
        cut_after: bytes from the server after which a connection is cut, for each of the next ones.
    """

    def __init__(self, server: Address) -> None:
        self.url = ""
        self.server = server
        self.connections = 0
        self.cut_after: list[int] = []
        self._lines: set[asyncio.StreamWriter] = set()
        self._work: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Break off all connections, as a lost network would."""
        for line in self._lines:
            line.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        limit = self.cut_after.pop(0) if self.cut_after else None
        address = urlsplit(self.server.url)
        try:
            from_server, to_server = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            writer.transport.abort()
            return
        lines = {writer, to_server}
        self._lines |= lines
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, to_server, None))
                group.create_task(self._pass_on(from_server, writer, limit))
        finally:
            self._lines -= lines
            for line in lines:
                line.transport.abort()

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, limit: int | None
    ) -> None:
        passed = 0
        try:
            while data := await source.read(65536):
                passed += len(data)
                if limit is not None and passed > limit:
                    break
                target.write(data)
                await target.drain()
        except OSError:
            pass
        if limit is not None and passed > limit:
            self.cut()
        elif target.can_write_eof():
            target.transport.abort() if target.is_closing() else target.close()


@asynccontextmanager
async def running_proxy(server: Address) -> AsyncIterator[Proxy]:
    proxy = Proxy(server)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()
        proxy.cut()

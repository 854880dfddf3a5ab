"""A bad network: it cuts, delays, throttles, half-closes or corrupts the TCP streams that it passes on."""

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Connect = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_CHUNK = 4096
_NARROW = 16 * 2**10


@dataclass(frozen=True)
class Faults:
    """What happens to a connection; nothing, by default.

    Attributes:
        cut_within: it is reset after a number of bytes, in both directions together, drawn up to this one.
        cut_after: it is reset after so many bytes from the server.
        end_within: the client's direction ends (FIN) after so many bytes, the other goes on.
        delay: seconds that each piece is held back at most.
        bytes_per_second: in each direction.
        latency: seconds that each piece takes in each direction, however many are on their way.
        flips: the probability that a piece has a bit flipped.
    """

    cut_within: int | None = None
    cut_after: int | None = None
    end_within: int | None = None
    delay: float = 0.0
    bytes_per_second: int | None = None
    latency: float = 0.0
    flips: float = 0.0


class Network:
    """A network in a thread of its own. It keeps little of what it is given, as a slow line does.

    Attributes:
        url: where it listens, as of an HTTP server.
        port: of that, at 127.0.0.1.
        connect: leads to the other end; for connections that are made from now on.
        faults: what happens to connections that are made from now on.
        faults_of_next: what happens to each of the next ones instead.
        silent: nothing is passed on while this is set; connections stay open.
        connections, cuts, ends, flips: how many there were.
        passed: bytes in both directions.
    """

    def __init__(self, connect: Connect, seed: int) -> None:
        self.connect = connect
        self.faults = Faults()
        self.faults_of_next: list[Faults] = []
        self.silent = False
        self.connections = self.cuts = self.ends = self.flips = self.passed = 0
        self._chance = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW)  # and so of the connections
        listening = asyncio.start_server(self._serve, sock=listener, limit=_CHUNK)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def cut_all(self) -> None:
        """Reset every connection."""
        self._loop.call_soon_threadsafe(self._abort, *self._open)

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            self._abort(*self._open)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.connections += 1
        faults = self.faults_of_next.pop(0) if self.faults_of_next else self.faults
        try:
            server, to_server = await self.connect()
        except OSError:
            self._abort(to_client)
            return
        ends = {to_client, to_server}
        for end in ends:
            end.transport.set_write_buffer_limits(_CHUNK)
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _NARROW)
        self._open |= ends
        stream = _Stream(self, faults, self._chance, lambda: self._abort(*ends))
        try:
            await asyncio.gather(stream.to_server(client, to_server), stream.to_client(server, to_client))
        except (OSError, asyncio.CancelledError):  # cut, or closed
            self._abort(*ends)
        finally:
            self._open -= ends
            for end in ends:
                end.close()

    def _abort(self, *ends: asyncio.StreamWriter) -> None:
        for end in ends:
            end.transport.abort()


class _Stream:
    """Both directions of one connection."""

    def __init__(
        self, network: Network, faults: Faults, chance: random.Random, abort: Callable[[], None]
    ) -> None:
        self._network = network
        self._faults = faults
        self._chance = chance
        self._abort = abort
        self._cut = _Budget(self._drawn(faults.cut_within))

    async def to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the client's direction on, to its end or to an early one."""
        await self._pass_on(reader, writer, [self._cut], _Budget(self._drawn(self._faults.end_within)))

    async def to_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the server's direction on, to its end."""
        await self._pass_on(reader, writer, [self._cut, _Budget(self._faults.cut_after)], _Budget(None))

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        until_cut: list["_Budget"],
        until_end: "_Budget",
    ) -> None:
        while data := await reader.read(_CHUNK):
            await self._hold_back(len(data))
            data = self._spoilt(data)
            for budget in (*until_cut, until_end):
                data = budget.take(data)
            self._network.passed += len(data)
            if self._faults.latency:
                asyncio.get_running_loop().call_later(self._faults.latency, self._arrive, writer, data)
            else:
                self._arrive(writer, data)
            if any(budget.is_spent for budget in until_cut):
                self._network.cuts += 1
                self._abort()
                return
            if until_end.is_spent:
                self._network.ends += 1
                break
            await writer.drain()
        await asyncio.sleep(self._faults.latency)
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()

    @staticmethod
    def _arrive(writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)

    async def _hold_back(self, size: int) -> None:
        if self._faults.delay:
            await asyncio.sleep(self._chance.uniform(0, self._faults.delay))
        if self._faults.bytes_per_second is not None:
            await asyncio.sleep(size / self._faults.bytes_per_second)
        while self._network.silent:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)

    def _spoilt(self, data: bytes) -> bytes:
        if self._chance.random() >= self._faults.flips:
            return data
        self._network.flips += 1
        spoilt = bytearray(data)
        spoilt[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)
        return bytes(spoilt)

    def _drawn(self, limit: int | None) -> int | None:
        return None if limit is None else self._chance.randint(1, limit)


class _Budget:
    """Bytes that may pass; None is no limit."""

    def __init__(self, left: int | None) -> None:
        self._left = left

    @property
    def is_spent(self) -> bool:
        return self._left == 0

    def take(self, data: bytes) -> bytes:
        """As much of the data as may pass."""
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data


@contextmanager
def running_network(connect: Connect, seed: int = 0) -> Iterator[Network]:
    network = Network(connect, seed)
    try:
        yield network
    finally:
        network.close()


def to_url(url: str) -> Connect:
    """The server of a URL with a port."""
    address = urlsplit(url)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW)  # only before it is connected
        end.setblocking(False)
        await asyncio.get_running_loop().sock_connect(end, (address.hostname, address.port))
        return await asyncio.open_connection(sock=end, limit=_CHUNK)

    return connect


def to_socket(path: str) -> Connect:
    """Whoever listens at a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)

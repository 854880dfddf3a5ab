"""A bad network: it cuts, delays, throttles, half-closes or corrupts the TCP streams that it passes on."""

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Connect = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_CHUNK = 4096


@dataclass(frozen=True)
class Faults:
    """What happens to a connection; nothing, by default.

    Attributes:
        cut_within: it is reset after a number of bytes, in both directions together, drawn up to this one.
        end_within: the client's direction ends (FIN) after so many bytes, the other goes on.
        delay: seconds that each piece is held back at most.
        bytes_per_second: in each direction.
        flips: the probability that a piece has a bit flipped.
    """

    cut_within: int | None = None
    end_within: int | None = None
    delay: float = 0.0
    bytes_per_second: int | None = None
    flips: float = 0.0


class Network:
    """A network in a thread of its own.

    Attributes:
        port: where it listens, at 127.0.0.1.
        faults: what happens to connections that are made from now on.
        silent: nothing is passed on while this is set; connections stay open.
        connections, cuts, ends, flips: how many there were.
    """

    def __init__(self, connect: Connect, seed: int) -> None:
        self.faults = Faults()
        self.silent = False
        self.connections = self.cuts = self.ends = self.flips = 0
        self._connect = connect
        self._chance = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]

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
        try:
            server, to_server = await self._connect()
        except OSError:
            self._abort(to_client)
            return
        self.connections += 1
        ends = {to_client, to_server}
        self._open |= ends
        stream = _Stream(self, self.faults, self._chance, lambda: self._abort(*ends))
        try:
            await asyncio.gather(
                stream.pass_on(client, to_server, ends_early=True), stream.pass_on(server, to_client)
            )
        except OSError:
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
        self._until_cut = self._drawn(faults.cut_within)
        self._until_end = self._drawn(faults.end_within)

    async def pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ends_early: bool = False
    ) -> None:
        """Pass one direction on, to its end."""
        while data := await reader.read(_CHUNK):
            await self._hold_back(len(data))
            data = self._spoilt(data)
            if self._until_cut is not None:
                data, over = data[: self._until_cut], len(data) >= self._until_cut
                self._until_cut -= len(data)
                if over:
                    writer.write(data)
                    self._network.cuts += 1
                    self._abort()
                    return
            if ends_early and self._until_end is not None:
                data, over = data[: self._until_end], len(data) >= self._until_end
                self._until_end -= len(data)
                if over:
                    writer.write(data)
                    self._network.ends += 1
                    break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()

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


@contextmanager
def running_network(connect: Connect, seed: int = 0) -> Iterator[Network]:
    network = Network(connect, seed)
    try:
        yield network
    finally:
        network.close()


def to_port(port: int) -> Connect:
    """Whoever listens at a port of this machine."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


def to_socket(path: str) -> Connect:
    """Whoever listens at a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)

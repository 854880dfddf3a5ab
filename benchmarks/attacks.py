"""Attacks on a server on this machine, each for a while; `benchmarks.hostile` starts them.

    python -m benchmarks.attacks NAME PORT COUNT SECONDS

Prints `ready` when the attack is under way, and in the end in one line what became of it. Attackers come from
127.0.0.2 and up, so that their addresses' limits are not those of whoever comes from 127.0.0.1.
"""

import asyncio
import base64
import resource
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec
import numpy as np
import uvloop

from benchmarks.report import KEY
from engines import OutputFormat, Picture, encode

__all__ = ["ATTACKS", "FAST_MODEL", "TEXT", "authenticate", "frame", "receive", "websocket"]

FAST_MODEL = "realesr-animevideov3"
CONNECTIONS_OF_AN_ADDRESS = 900
AT_ONCE = 50
UNREAD_REPLIES = 4
HANGING = 150
SETTLES = 3

TEXT, PING = 0x81, 0x89
_HANDSHAKE = (
    b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

Attack = Callable[["Siege"], Awaitable[None]]


class Siege:
    """An attack under way.

    Attributes:
        count: connections of those attacks that have a number of them.
        tally: what was done, and what it led to.
    """

    def __init__(self, port: int, count: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._opened = 0
        self.count = count
        self.tally: Counter[str] = Counter()

    async def besiege(self) -> None:
        """It is under way: tell so, and hold on."""
        print("ready", flush=True)
        await asyncio.sleep(self._seconds)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A WebSocket, if the server takes it: `tally` has the status of its answer."""
        address = f"127.0.0.{2 + self._opened // CONNECTIONS_OF_AN_ADDRESS}"
        self._opened += self.count > 0  # floods come from one address
        async with websocket(self._port, address) as (status, reader, writer):
            self.tally[f"answers {status}"] += 1
            if status != "101":
                raise ConnectionRefusedError
            yield reader, writer

    async def hold(
        self, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        """`count` connections that have authenticated and then talked, all of them open until the end."""
        room = asyncio.Semaphore(AT_ONCE)
        async with AsyncExitStack() as stack:

            async def begin() -> None:
                async with room:
                    reader, writer = await stack.enter_async_context(self.connection())
                    await authenticate(reader, writer, KEY)
                    await talk(reader, writer)

            outcomes = await asyncio.gather(*(begin() for _ in range(self.count)), return_exceptions=True)
            self.tally["held"] = outcomes.count(None)
            await self.besiege()

    async def flood(self, wave: Callable[[], Awaitable[None]]) -> None:
        """Waves by `AT_ONCE` clients, each beginning anew as soon as it has ended."""

        async def client() -> None:
            while True:
                with suppress(OSError, asyncio.IncompleteReadError):
                    await wave()

        clients = [asyncio.create_task(client()) for _ in range(AT_ONCE)]
        await self.besiege()
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def slow_readers(siege: Siege) -> None:
    """Connections that ask for large results and read none of them."""
    task_uuid = await make_large_result(siege)
    asking = [{"taskType": "getResponse", "taskUUID": task_uuid}] * UNREAD_REPLIES

    async def ask(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined] - of its reading half
        writer.write(frame(TEXT, msgspec.json.encode(asking)))
        siege.tally["replies asked for"] += UNREAD_REPLIES

    await siege.hold(ask)


async def idle(siege: Siege) -> None:
    """Connections that authenticate and say no more."""

    async def say_nothing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    await siege.hold(say_nothing)


async def connections(siege: Siege) -> None:
    """Handshakes from one address as fast as they go; what the server takes is kept open."""

    async with AsyncExitStack() as kept:

        async def knock() -> None:
            await kept.enter_async_context(siege.connection())

        await siege.flood(knock)


async def pings(siege: Siege) -> None:
    """WebSocket pings and ping tasks, many in each piece, by connections that have authenticated."""
    control = frame(PING, b"x" * 100) * 200
    tasks = frame(TEXT, msgspec.json.encode([{"taskType": "ping"}] * 200))

    async def ping() -> None:
        async with siege.connection() as (reader, writer):
            await authenticate(reader, writer, KEY)
            reading = asyncio.create_task(reader.read())
            try:
                while not reading.done():
                    writer.write(tasks)
                    siege.tally["ping tasks"] += 200
                    writer.write(control)
                    siege.tally["pings"] += 200
                    await writer.drain()
                    await asyncio.sleep(0)
            finally:
                reading.cancel()

    await siege.flood(ping)


async def wrong_keys(siege: Siege) -> None:
    """Connections that try a key that is wrong, and try again."""

    async def guess() -> None:
        async with siege.connection() as (reader, writer):
            answer = await authenticate(reader, writer, f"tw_{uuid.uuid4()}")
            siege.tally["limited" if b"RateLimit" in answer else "looked at"] += 1

    await siege.flood(guess)


async def hanging_inputs(siege: Siege) -> None:
    """Tasks whose inputs are at a host that takes connections and never answers."""
    await hang(siege, lambda host, number: {"inputs": {"image": f"{host}/{number}"}})


async def hanging_uploads(siege: Siege) -> None:
    """Tasks whose results go to such a host."""
    image = base64.b64encode(_noise(16)).decode()
    await hang(
        siege,
        lambda host, number: {"inputs": {"image": image}, "uploadEndpoint": f"{host}/{number}"},
    )


async def hanging_webhooks(siege: Siege) -> None:
    """Tasks whose outcomes are to be told to such a host."""
    image = base64.b64encode(_noise(16)).decode()
    await hang(
        siege,
        lambda host, number: {"inputs": {"image": image}, "webhookURL": f"{host}/{number}"},
    )


async def hang(siege: Siege, parameters: Callable[[str, int], dict[str, object]]) -> None:
    """Tasks of one account, many at once, that wait for a host on this machine."""
    held: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(take, "127.0.0.9", 0, backlog=1024) as outside:
        host = f"http://127.0.0.9:{outside.sockets[0].getsockname()[1]}"
        async with siege.connection() as (reader, writer):
            await authenticate(reader, writer, KEY)
            for number in range(HANGING):
                task = {
                    "taskType": "upscale",
                    "taskUUID": str(uuid.uuid4()),
                    "model": FAST_MODEL,
                    "upscaleFactor": 4,
                    **parameters(host, number),
                }
                writer.write(frame(TEXT, msgspec.json.encode([task])))
            await writer.drain()
            before = -1
            while len(held) > before:  # what they compute first is another matter
                before = len(held)
                await asyncio.sleep(SETTLES)
            await siege.besiege()
            siege.tally["connections that hang"] = len(held)
            for each in held:
                each.transport.abort()


def _noise(side: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encode(Picture(pixels), OutputFormat.PNG)


ATTACKS: dict[str, Attack] = {
    "slow readers": slow_readers,
    "idle": idle,
    "connections": connections,
    "pings": pings,
    "wrong keys": wrong_keys,
    "hanging inputs": hanging_inputs,
    "hanging uploads": hanging_uploads,
    "hanging webhooks": hanging_webhooks,
}


async def make_large_result(siege: Siege) -> str:
    """The UUID of a task whose result has about 600 KB in base64."""
    image = base64.b64encode(_noise(96)).decode()
    task = {
        "taskType": "upscale",
        "taskUUID": str(uuid.uuid4()),
        "model": FAST_MODEL,
        "upscaleFactor": 4,
        "outputType": "base64Data",
        "outputFormat": "PNG",
        "inputs": {"image": image},
    }
    async with siege.connection() as (reader, writer):
        await authenticate(reader, writer, KEY)
        writer.write(frame(TEXT, msgspec.json.encode([task])))
        answer = await receive(reader)
        assert b"imageBase64Data" in answer, answer[:300]
        siege.tally["bytes of a reply"] = len(answer)
    return str(task["taskUUID"])


@asynccontextmanager
async def websocket(
    port: int, address: str
) -> AsyncIterator[tuple[str, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection from an address of this machine; first the status of the answer to its handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(_HANDSHAKE)
        head = await reader.readuntil(b"\r\n\r\n")
        yield head[9:12].decode(), reader, writer
    finally:
        writer.transport.abort()


async def authenticate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> bytes:
    """The server's answer to a key."""
    task = {"taskType": "authentication", "apiKey": key}
    writer.write(frame(TEXT, msgspec.json.encode([task])))
    return await receive(reader)


async def receive(reader: asyncio.StreamReader) -> bytes:
    """The payload of the next frame."""
    _, size = await reader.readexactly(2)
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return await reader.readexactly(size)


def frame(first: int, payload: bytes) -> bytes:
    """A frame with a mask of zeros (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 2**16:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


def main(name: str, port: str, count: str, seconds: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    siege = Siege(int(port), int(count), float(seconds))
    uvloop.run(ATTACKS[name](siege))
    print(", ".join(f"{number} {what}" for what, number in siege.tally.items()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

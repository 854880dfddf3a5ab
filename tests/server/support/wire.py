"""A WebSocket client that sends whatever bytes it is told to, and reads what comes with a strict eye."""

import asyncio
import base64
import hashlib
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from enum import IntEnum
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tests.server.support.harness import KEY, PATIENCE, Address

__all__ = [
    "AUTHENTICATION",
    "KEY_OF_THE_RFC",
    "Handshake",
    "Op",
    "Received",
    "Wire",
    "close",
    "frame",
    "wired",
]

KEY_OF_THE_RFC: Final = "dGhlIHNhbXBsZSBub25jZQ=="
AUTHENTICATION: Final = f'[{{"taskType":"authentication","apiKey":"{KEY}"}}]'.encode()

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Op(IntEnum):
    """Opcodes (RFC 6455 section 5.2)."""

    CONT = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Received(NamedTuple):
    """A frame of the server's."""

    opcode: int
    payload: bytes


class Handshake(NamedTuple):
    """The server's answer to a handshake; the names of `headers` are in lower case."""

    status: int
    headers: dict[str, str]


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x12\x34\x56\x78",
    length_bytes: int | None = None,
) -> bytes:
    """A frame as RFC 6455 section 5.2 draws it.

    Args:
        length_bytes: 0, 2 or 8 of them tell the length, beside the seven bits; default: as few as can.
    """
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 2**16 else 8
    masked = 0x80 if mask else 0
    first = fin << 7 | rsv << 4 | opcode
    head = {
        0: lambda: struct.pack("!BB", first, masked | size),
        2: lambda: struct.pack("!BBH", first, masked | 126, size),
        8: lambda: struct.pack("!BBQ", first, masked | 127, size),
    }[length_bytes]()
    if mask is None:
        return head + payload
    key = int.from_bytes(mask * (size // 4 + 1), "big") >> (8 * (4 - size % 4))
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """A close frame."""
    return frame(Op.CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


class Wire:
    """One connection.

    Attributes:
        handshake: how the server answered.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handshake: Handshake
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.handshake = handshake

    async def send(self, *frames: bytes, chop: int | None = None) -> None:
        """Send frames: all in one piece, or in pieces of `chop` octets; 0: each frame by itself."""
        data = b"".join(frames)
        pieces: Sequence[bytes] = [data]
        if chop is not None:
            pieces = [data[at : at + chop] for at in range(0, len(data), chop)] if chop else frames
        with suppress(ConnectionError):  # the server may have had enough
            for piece in pieces:
                self._writer.write(piece)
                if len(pieces) > 1:
                    await asyncio.sleep(0)
            await self._writer.drain()

    async def receive(self) -> Received:
        """The next frame, which must be as servers must send them (RFC 6455 sections 5.1, 5.2 and 5.5)."""
        first, second = await self._read(2)
        assert first & 0x70 == 0, "a reserved bit is set"
        assert second & 0x80 == 0, "servers must not mask"
        assert first & 0x80, "what tests ask for here is small: Tilewire does not fragment it"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self._read(2))
            assert size >= 126, "the length is not minimal"
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._read(8))
            assert size >= 2**16, "the length is not minimal"
        opcode = first & 0x0F
        assert opcode < 8 or size < 126, "control frames have at most 125 bytes"
        return Received(opcode, await self._read(size))

    async def message(self) -> bytes:
        """The payload of the next frame, which must have data."""
        opcode, payload = await self.receive()
        assert opcode in (Op.TEXT, Op.BINARY), (opcode, payload)
        return payload

    async def ended(self) -> list[Received]:
        """What comes until the server ends the connection."""
        received = []
        while True:
            try:
                received.append(await self.receive())
            except (asyncio.IncompleteReadError, ConnectionError):
                return received

    async def closed(self) -> int | None:
        """The code of the server's close frame, which must be the last; None if it carries none.

        Raises:
            AssertionError: if there was no close frame.
        """
        received = await self.ended()
        assert received, "the connection ended without a close frame"
        opcode, payload = received[-1]
        assert opcode == Op.CLOSE, received
        payload[2:].decode()
        return int.from_bytes(payload[:2], "big") if payload else None

    async def _read(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(size)


@asynccontextmanager
async def wired(
    server: Address,
    *,
    authenticate: bool = True,
    request_line: str = "GET /v1 HTTP/1.1",
    without: str = "",
    **headers: str | None,
) -> AsyncIterator[Wire]:
    """A connection after its handshake, and after the authentication.

    Args:
        without: a header to leave out.
        headers: with `_` for `-`; they replace those of a good handshake.
    """
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    good = {
        "Host": address.netloc,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY_OF_THE_RFC,
        "Sec-WebSocket-Version": "13",
    }
    sent = good | {name.replace("_", "-"): value or "" for name, value in headers.items()}
    sent.pop(without, None)
    lines = [request_line, *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1"))
    try:
        wire = Wire(reader, writer, await _handshake(reader))
        if wire.handshake.status == 101:
            expected = base64.b64encode(hashlib.sha1(f"{KEY_OF_THE_RFC}{_GUID}".encode()).digest())  # noqa: S324
            assert wire.handshake.headers["sec-websocket-accept"] == expected.decode()
            assert wire.handshake.headers["upgrade"].lower() == "websocket"
            assert wire.handshake.headers["connection"].lower() == "upgrade"
            if authenticate:
                await wire.send(frame(Op.TEXT, AUTHENTICATION))
                assert b"connectionSessionUUID" in await wire.message()
        yield wire
    finally:
        writer.transport.abort()


async def _handshake(reader: asyncio.StreamReader) -> Handshake:
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Handshake(int(status.split()[1]), headers)

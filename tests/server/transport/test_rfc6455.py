"""RFC 6455 from a bare socket, in the order of the Autobahn test suite.

Autobahn's server is an echo. Ours answers tasks: a ping task that is padded to the size of Autobahn's message
takes the place of that message, its pong that of the echo. Ids begin with Autobahn's numbers.
"""

import json
from typing import Any

import msgspec
import pytest

from server.serving import EmbeddedServer
from tests.server.support.harness import PATIENCE, connected, new_uuid, until
from tests.server.support.wire import AUTHENTICATION, KEY_OF_THE_RFC, Op, Wire, close, frame, wired

PING_TASK = b'[{"taskType":"ping","ping":true}]'
PONG = {"data": [{"taskType": "ping", "pong": True}]}
OCTETS, FRAMES = 1, 0


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Any:
    """Whatever a client sends, no exception is ours."""
    yield
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


def padded(size: int) -> bytes:
    """A ping task of this many bytes. (White space that is not intact would be no JSON.)"""
    return PING_TASK[:-1] + b" " * (size - len(PING_TASK)) + b"]"


def halves(payload: bytes, opcode: int = Op.TEXT) -> tuple[bytes, bytes]:
    """A message in two fragments."""
    half = len(payload) // 2
    return frame(opcode, payload[:half], fin=False), frame(Op.CONT, payload[half:])


async def pong(wire: Wire) -> None:
    """The answer to a ping task is next."""
    assert json.loads(await wire.message()) == PONG


async def works(wire: Wire) -> None:
    await wire.send(frame(Op.TEXT, PING_TASK))
    await pong(wire)


# 1: framing


@pytest.mark.parametrize(
    ("size", "chop"),
    [
        pytest.param(125, None, id="1.1.2"),
        pytest.param(126, None, id="1.1.3"),
        pytest.param(127, None, id="1.1.4"),
        pytest.param(128, None, id="1.1.5"),
        pytest.param(65535, None, id="1.1.6"),
        pytest.param(65536, None, id="1.1.7"),
        pytest.param(65536, 997, id="1.1.8"),
    ],
)
@pytest.mark.parametrize("opcode", [Op.TEXT, Op.BINARY])
async def test_messages_of_any_length_are_taken(
    server: EmbeddedServer, size: int, chop: int | None, opcode: Op
) -> None:
    async with wired(server) as wire:
        await wire.send(frame(opcode, padded(size)), chop=chop)
        await pong(wire)


@pytest.mark.parametrize("opcode", [pytest.param(Op.TEXT, id="1.1.1"), pytest.param(Op.BINARY, id="1.2.1")])
async def test_an_empty_message_is_answered(server: EmbeddedServer, opcode: Op) -> None:
    async with wired(server) as wire:
        await wire.send(frame(opcode))
        assert b"invalidFrame" in await wire.message()
        await works(wire)


@pytest.mark.parametrize("size", [0, 60, 125, 126, 65535, 65536])
async def test_messagepack_of_any_length_is_taken(server: EmbeddedServer, size: int) -> None:
    """1.2, in the format that is binary."""
    async with connected(server, messagepack=True) as peer:
        await peer.send({"taskType": "ping", "padding": bytes(size)})
        assert await peer.receive() == PONG


@pytest.mark.parametrize(("size", "length_bytes"), [(40, 2), (40, 8), (125, 2), (126, 8), (65535, 8)])
async def test_a_length_in_more_bytes_than_it_needs_is_no_reason_to_hang_up(
    server: EmbeddedServer, size: int, length_bytes: int
) -> None:
    """The sender must use the least (section 5.2); what the receiver does is left open."""
    async with wired(server) as wire:
        await wire.send(frame(Op.TEXT, padded(size), length_bytes=length_bytes))
        await pong(wire)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**63 - 1, 2**40])
async def test_an_absurd_length_ends_the_connection(server: EmbeddedServer, length: int) -> None:
    async with wired(server) as wire:
        await wire.send(b"\x81\xff" + length.to_bytes(8, "big") + b"mask", b"payload" * 200_000)
        assert await wire.closed() == 1009  # and the client learns it, though it goes on sending


@pytest.mark.parametrize("opcode", [Op.TEXT, Op.BINARY, Op.PING, Op.CLOSE])
async def test_a_frame_that_is_not_masked_ends_the_connection(server: EmbeddedServer, opcode: Op) -> None:
    """Section 5.1."""
    async with wired(server) as wire:
        await wire.send(frame(opcode, b"", mask=None))
        assert await wire.closed() == 1002


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\xff\0\x01"])
async def test_any_mask_will_do(server: EmbeddedServer, mask: bytes) -> None:
    async with wired(server) as wire:
        await wire.send(frame(Op.TEXT, padded(1001), mask=mask))
        await pong(wire)


# 2: pings and pongs


@pytest.mark.parametrize(
    ("payload", "chop"),
    [
        pytest.param(b"", None, id="2.1"),
        pytest.param(b"Hello, world!", None, id="2.2"),
        pytest.param(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", None, id="2.3"),
        pytest.param(b"\xfe" * 125, None, id="2.4"),
        pytest.param(b"\xfe" * 125, OCTETS, id="2.6"),
    ],
)
async def test_a_ping_is_answered_with_its_payload(
    server: EmbeddedServer, payload: bytes, chop: int | None
) -> None:
    async with wired(server) as wire:
        await wire.send(frame(Op.PING, payload), chop=chop)
        assert await wire.receive() == (Op.PONG, payload)


@pytest.mark.parametrize(
    "opcode",
    [pytest.param(Op.PING, id="2.5"), pytest.param(Op.PONG, id="pong"), pytest.param(Op.CLOSE, id="7.3.6")],
)
async def test_a_control_frame_of_more_than_125_bytes_ends_the_connection(
    server: EmbeddedServer, opcode: Op
) -> None:
    async with wired(server) as wire:
        await wire.send(frame(opcode, b"\x03\xe8" + b"x" * 124))
        assert await wire.closed() == 1002


@pytest.mark.parametrize("payload", [pytest.param(b"", id="2.7"), pytest.param(b"unsolicited", id="2.8")])
async def test_a_pong_that_nobody_asked_for_is_ignored(server: EmbeddedServer, payload: bytes) -> None:
    async with wired(server) as wire:
        await wire.send(frame(Op.PONG, payload))
        await wire.send(frame(Op.PING, b"2.9"))
        assert await wire.receive() == (Op.PONG, b"2.9")
        await wire.send(close())
        assert await wire.closed() == 1000


@pytest.mark.parametrize("chop", [pytest.param(None, id="2.10"), pytest.param(OCTETS, id="2.11")])
async def test_ten_pings_are_answered_in_order(server: EmbeddedServer, chop: int | None) -> None:
    async with wired(server) as wire:
        await wire.send(*(frame(Op.PING, b"payload-%d" % n) for n in range(10)), chop=chop)
        for number in range(10):
            assert await wire.receive() == (Op.PONG, b"payload-%d" % number)


async def test_thousands_of_pings_in_one_piece_end_the_connection(server: EmbeddedServer) -> None:
    async with wired(server) as wire:
        await wire.send(*[frame(Op.PING, b"x")] * 5000)
        assert await wire.closed() == 1008


# 3: reserved bits


@pytest.mark.parametrize("rsv", range(1, 8), ids="3.{}".format)
@pytest.mark.parametrize("opcode", [Op.TEXT, Op.BINARY, Op.PING, Op.CLOSE])
@pytest.mark.parametrize("chop", [FRAMES, OCTETS])
async def test_a_reserved_bit_ends_the_connection(
    server: EmbeddedServer, rsv: int, opcode: Op, chop: int
) -> None:
    async with wired(server) as wire:
        await wire.send(frame(Op.TEXT, PING_TASK))
        await pong(wire)
        await wire.send(frame(opcode, b"", rsv=rsv), frame(Op.PING), chop=chop)
        assert await wire.closed() == 1002


# 4: reserved opcodes


@pytest.mark.parametrize(
    "opcode",
    [
        *(pytest.param(2 + number, id=f"4.1.{number}") for number in range(1, 6)),
        *(pytest.param(10 + number, id=f"4.2.{number}") for number in range(1, 6)),
    ],
)
@pytest.mark.parametrize("payload", [b"", b"reserved"])
async def test_a_reserved_opcode_ends_the_connection(
    server: EmbeddedServer, opcode: int, payload: bytes
) -> None:
    async with wired(server) as wire:
        await works(wire)
        await wire.send(frame(opcode, payload), frame(Op.PING))
        assert await wire.closed() == 1002


# 5: fragmentation


@pytest.mark.parametrize(
    "opcode", [pytest.param(Op.PING, id="5.1"), pytest.param(Op.PONG, id="5.2"), Op.CLOSE]
)
async def test_a_control_frame_in_fragments_ends_the_connection(server: EmbeddedServer, opcode: Op) -> None:
    async with wired(server) as wire:
        await wire.send(*halves(b"\x03\xe8ab", opcode))
        assert await wire.closed() == 1002


@pytest.mark.parametrize(
    "chop", [pytest.param(None, id="5.3"), pytest.param(FRAMES, id="5.4"), pytest.param(OCTETS, id="5.5")]
)
@pytest.mark.parametrize("opcode", [Op.TEXT, Op.BINARY])
async def test_a_message_in_fragments_is_one_message(
    server: EmbeddedServer, chop: int | None, opcode: Op
) -> None:
    async with wired(server) as wire:
        await wire.send(*halves(PING_TASK, opcode), chop=chop)
        await pong(wire)


@pytest.mark.parametrize(
    "chop", [pytest.param(None, id="5.6"), pytest.param(FRAMES, id="5.7"), pytest.param(OCTETS, id="5.8")]
)
async def test_a_ping_between_fragments_is_answered_first(server: EmbeddedServer, chop: int | None) -> None:
    first, second = halves(PING_TASK)
    async with wired(server) as wire:
        await wire.send(first, frame(Op.PING, b"between"), second, chop=chop)
        assert await wire.receive() == (Op.PONG, b"between")
        await pong(wire)


CONTINUED = frame(Op.CONT, b"nothing to continue")
CONTINUING = frame(Op.CONT, b"nothing to continue", fin=False)
WHOLE = frame(Op.TEXT, PING_TASK)


@pytest.mark.parametrize(
    ("frames", "chop"),
    [
        pytest.param((CONTINUED, WHOLE), None, id="5.9"),
        pytest.param((CONTINUED, WHOLE), FRAMES, id="5.10"),
        pytest.param((CONTINUED, WHOLE), OCTETS, id="5.11"),
        pytest.param((CONTINUING, WHOLE), None, id="5.12"),
        pytest.param((CONTINUING, WHOLE), FRAMES, id="5.13"),
        pytest.param((CONTINUING, WHOLE), OCTETS, id="5.14"),
        pytest.param((*halves(PING_TASK), CONTINUING, WHOLE), None, id="5.15"),
        pytest.param((CONTINUING, *halves(PING_TASK)) * 2, None, id="5.16"),
        pytest.param((CONTINUED, *halves(PING_TASK)) * 2, None, id="5.17"),
        pytest.param((frame(Op.TEXT, b"[", fin=False), frame(Op.TEXT, b"]")), None, id="5.18"),
        pytest.param((frame(Op.TEXT, b"[", fin=False), frame(Op.BINARY, b"]")), FRAMES, id="5.18 binary"),
    ],
)
async def test_fragments_out_of_place_end_the_connection(
    server: EmbeddedServer, frames: tuple[bytes, ...], chop: int | None
) -> None:
    async with wired(server) as wire:
        await wire.send(*frames, chop=chop)
        assert await wire.closed() == 1002


@pytest.mark.parametrize("chop", [pytest.param(None, id="5.19"), pytest.param(FRAMES, id="5.20")])
async def test_five_fragments_with_pings_between_them_are_one_message(
    server: EmbeddedServer, chop: int | None
) -> None:
    parts = [PING_TASK[at : at + 7] for at in range(0, len(PING_TASK), 7)]
    async with wired(server) as wire:
        await wire.send(
            frame(Op.TEXT, parts[0], fin=False),
            frame(Op.CONT, parts[1], fin=False),
            frame(Op.PING, b"one"),
            chop=chop,
        )
        assert await wire.receive() == (Op.PONG, b"one")
        await wire.send(
            frame(Op.CONT, parts[2], fin=False),
            frame(Op.CONT, parts[3], fin=False),
            frame(Op.PING, b"two"),
            frame(Op.CONT, parts[4]),
            chop=chop,
        )
        assert await wire.receive() == (Op.PONG, b"two")
        await pong(wire)


# 6: UTF-8

VALID = {
    "6.2": "Hello-µ@ßöäüàá-UTF-8!!",
    "6.5": "κόσμε",
    "6.6 one byte": "\x7f",
    "6.6 two bytes": "\x80\u07ff",
    "6.6 three bytes": "\u0800\ud7ff\ue000\uffff",
    "6.6 four bytes": "\U00010000\U0010ffff",
    "6.22 noncharacters": "\ufdd0\ufffe\U0001ffff\U0010fffe",
    "combining": "e\u0301\u200d\U0001f469\u200d\U0001f680",
}
INVALID = {
    "6.3.1": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    "6.8 cut off after the first of two": b"\xc2",
    "6.8 cut off after the first of three": b"\xe0",
    "6.8 cut off after the second of three": b"\xef\xbf",
    "6.8 cut off after the first of four": b"\xf0",
    "6.8 cut off after the third of four": b"\xf4\x8f\xbf",
    "6.9 five bytes": b"\xf8\x88\x80\x80\x80",
    "6.10 six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "6.11 above the last": b"\xf4\x90\x80\x80",
    "6.12 a lone continuation": b"\x80",
    "6.12 another": b"\xbf",
    "6.13 lone starts": b"\xc3 \xe2 \xf0 ",
    "6.14 incomplete ones in a row": b"\xc3\xe2\x82\xf0\x9f\x98",
    "6.15 impossible bytes": b"\xfe\xfe\xff\xff",
    "6.16 overlong, two": b"\xc0\xaf",
    "6.16 overlong, three": b"\xe0\x80\xaf",
    "6.17 overlong, four": b"\xf0\x80\x80\xaf",
    "6.18 overlong maximum": b"\xc1\xbf",
    "6.19 overlong null": b"\xc0\x80",
    "6.20 a high surrogate": b"\xed\xa0\x80",
    "6.20 a low surrogate": b"\xed\xbf\xbf",
    "6.21 a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
}


def named(name: bytes) -> bytes:
    """A task whose taskType comes back in the error."""
    return b'[{"taskType":"%s","taskUUID":"%s"}]' % (name, new_uuid().encode())


async def test_empty_fragments_make_an_empty_message(server: EmbeddedServer) -> None:
    """6.1.2, and 6.1.3: empty ones around one that is not."""
    async with wired(server) as wire:
        empty = frame(Op.TEXT, fin=False), frame(Op.CONT, fin=False)
        await wire.send(*empty, frame(Op.CONT))
        assert b"invalidFrame" in await wire.message()
        await wire.send(*empty, frame(Op.CONT, PING_TASK, fin=False), frame(Op.CONT))
        await pong(wire)


@pytest.mark.parametrize("text", VALID.values(), ids=VALID.keys())
@pytest.mark.parametrize("fragments", ["whole", "octets"])
async def test_valid_utf8_is_taken_however_it_is_split(
    server: EmbeddedServer, text: str, fragments: str
) -> None:
    message = named(text.encode())
    async with wired(server) as wire:
        if fragments == "whole":
            await wire.send(frame(Op.TEXT, message))
        else:
            octets = [bytes((octet,)) for octet in message]
            await wire.send(
                frame(Op.TEXT, octets[0], fin=False),
                *(frame(Op.CONT, octet, fin=False) for octet in octets[1:]),
                frame(Op.CONT),
            )
        (error,) = json.loads(await wire.message())["errors"]
        assert error["taskType"] == text


@pytest.mark.parametrize("octets", INVALID.values(), ids=INVALID.keys())
@pytest.mark.parametrize("fragments", ["whole", "two", "octets"])
@pytest.mark.parametrize("authenticated", [True, False])
async def test_text_that_is_not_utf8_ends_the_connection(
    server: EmbeddedServer, octets: bytes, fragments: str, authenticated: bool
) -> None:
    async with wired(server, authenticate=authenticated) as wire:
        if fragments == "whole":
            await wire.send(frame(Op.TEXT, octets))
        elif fragments == "two":
            await wire.send(*halves(octets))
        else:
            await wire.send(
                frame(Op.TEXT, fin=False),
                *(frame(Op.CONT, bytes((octet,)), fin=False) for octet in octets),
                frame(Op.CONT),
                chop=OCTETS,
            )
        assert await wire.closed() == 1007


@pytest.mark.parametrize("chop", [pytest.param(FRAMES, id="6.4.1"), pytest.param(OCTETS, id="6.4.3")])
async def test_text_that_cannot_become_utf8_ends_the_connection_before_it_is_complete(
    server: EmbeddedServer, chop: int
) -> None:
    async with wired(server) as wire:
        await wire.send(
            frame(Op.TEXT, "κόσμε".encode(), fin=False), frame(Op.CONT, b"\xf4\x90", fin=False), chop=chop
        )
        assert await wire.closed() == 1007


async def test_bytes_that_are_not_utf8_are_no_reason_to_hang_up(server: EmbeddedServer) -> None:
    async with wired(server) as wire:
        await wire.send(frame(Op.BINARY, b"\xff\xfe"))
        assert b"invalidFrame" in await wire.message()
        await works(wire)


# 7: closing


async def test_a_close_is_answered_with_its_code(server: EmbeddedServer) -> None:
    """7.1.1."""
    async with wired(server) as wire:
        await works(wire)
        await wire.send(close(1000))
        assert await wire.ended() == [(Op.CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(close(), id="7.1.2"),
        pytest.param(frame(Op.PING, b"late"), id="7.1.3"),
        pytest.param(frame(Op.TEXT, PING_TASK), id="7.1.4"),
        pytest.param(b"\xff" * 100, id="nonsense"),
    ],
)
async def test_nothing_after_a_close_is_looked_at(server: EmbeddedServer, after: bytes) -> None:
    async with wired(server) as wire:
        await wire.send(close(), after)
        assert await wire.ended() == [(Op.CLOSE, b"\x03\xe8")]


async def test_nothing_is_sent_after_a_close_that_comes_with_pongs(server: EmbeddedServer) -> None:
    upload = {"taskType": "imageUpload", "taskUUID": new_uuid(), "image": "none"}
    async with wired(server) as wire:
        await wire.send(frame(Op.TEXT, json.dumps([upload, upload]).encode()))
        received = [
            await wire.receive() for _ in range(3)
        ]  # two errors, and a ping that asks who has the first
        (ping,) = [payload for opcode, payload in received if opcode == Op.PING]
        await wire.send(frame(Op.PONG, ping), close())
        assert await wire.ended() == [(Op.CLOSE, b"\x03\xe8")]


async def test_a_close_behind_messages_that_are_not_taken_ends_the_connection(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transport.websocket._CLOSE_WITHIN", 10 * PATIENCE)
    messages = [frame(Op.TEXT, padded(size)) for size in (100, 100, 20_000)]
    async with wired(server, authenticate=False) as wire:
        await wire.send(*messages, close())
        assert await wire.closed() in (1000, 1008)


async def test_a_close_within_a_message_ends_the_connection(server: EmbeddedServer) -> None:
    """7.1.5."""
    first, second = halves(PING_TASK)
    async with wired(server) as wire:
        await wire.send(first, close(), second)
        assert await wire.closed() in (1000, 1002)


async def test_a_close_behind_a_large_message_is_answered(server: EmbeddedServer) -> None:
    """7.1.6. Whether the message is answered before is left open."""
    async with wired(server) as wire:
        await wire.send(frame(Op.TEXT, padded(2**18)), close(), frame(Op.PING))
        assert await wire.closed() == 1000


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        pytest.param(b"", b"", id="7.3.1"),
        pytest.param(b"\x03\xe8", b"\x03\xe8", id="7.3.3"),
        pytest.param(b"\x03\xe8bye", b"\x03\xe8bye", id="7.3.4"),
        pytest.param(b"\x03\xe8" + b"x" * 123, b"\x03\xe8" + b"x" * 123, id="7.3.5"),
        pytest.param(b"\x03\xe8" + "κόσμε".encode(), b"\x03\xe8" + "κόσμε".encode(), id="UTF-8"),
    ],
)
async def test_a_proper_close_is_echoed(server: EmbeddedServer, payload: bytes, answer: bytes) -> None:
    async with wired(server) as wire:
        await wire.send(frame(Op.CLOSE, payload))
        assert await wire.ended() == [(Op.CLOSE, answer)]


async def test_a_close_of_one_byte_is_an_error(server: EmbeddedServer) -> None:
    """7.3.2."""
    async with wired(server) as wire:
        await wire.send(frame(Op.CLOSE, b"\x03"))
        assert await wire.closed() == 1002


@pytest.mark.parametrize(
    "reason", [INVALID["6.3.1"], b"\xed\xa0\x80", b"\xc2"], ids=["7.5.1", "surrogate", "cut off"]
)
async def test_a_reason_that_is_not_utf8_is_an_error(server: EmbeddedServer, reason: bytes) -> None:
    async with wired(server) as wire:
        await wire.send(close(1000, reason))
        assert await wire.closed() == 1007


@pytest.mark.parametrize(
    "code",
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999],
    ids="7.7 {}".format,
)
async def test_a_valid_code_is_echoed(server: EmbeddedServer, code: int) -> None:
    async with wired(server) as wire:
        await wire.send(close(code))
        assert await wire.closed() == code


@pytest.mark.parametrize(
    "code",
    [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535],
    ids="7.9 and 7.13 {}".format,
)
async def test_a_code_that_must_not_be_sent_is_an_error(server: EmbeddedServer, code: int) -> None:
    async with wired(server) as wire:
        await wire.send(close(code))
        assert await wire.closed() == 1002


# 9 and 10: large messages, in many pieces


@pytest.mark.parametrize("size", [2**18, 2**20, 2**22, 2**24], ids=["9.1.2", "9.1.3", "9.1.4", "9.1.6"])
@pytest.mark.parametrize("opcode", [Op.TEXT, Op.BINARY])
async def test_large_messages_are_taken(server: EmbeddedServer, size: int, opcode: Op) -> None:
    async with wired(server) as wire:
        await wire.send(frame(opcode, padded(size)))
        await pong(wire)


@pytest.mark.parametrize(
    ("size", "fragment"),
    [
        pytest.param(2**20, 64, id="9.3.1, of a fourth"),
        pytest.param(2**22, 256, id="9.3.2"),
        pytest.param(2**22, 1024, id="9.3.3"),
        pytest.param(2**22, 4096, id="9.3.4"),
        pytest.param(2**22, 16384, id="9.3.5"),
        pytest.param(2**22, 2**20, id="9.3.8"),
        pytest.param(65536, 1300, id="10.1.1"),
    ],
)
async def test_large_messages_in_many_fragments_are_taken(
    server: EmbeddedServer, size: int, fragment: int
) -> None:
    message = padded(size)
    parts = [message[at : at + fragment] for at in range(0, size, fragment)]
    async with wired(server) as wire:
        await wire.send(
            *(
                frame(Op.CONT if index else Op.TEXT, part, fin=index == len(parts) - 1)
                for index, part in enumerate(parts)
            )
        )
        await pong(wire)


async def test_more_fragments_than_are_kept_end_the_connection(server: EmbeddedServer) -> None:
    """9.3.1 has four times as many as we take: each costs more memory than it brings."""
    async with wired(server) as wire:
        await wire.send(frame(Op.TEXT, b" ", fin=False), frame(Op.CONT, b" ", fin=False) * 2**14)
        assert await wire.closed() == 1002


@pytest.mark.parametrize("chop", [64, 256, 2048], ids=["9.5.1", "9.5.3", "9.5.6"])
async def test_large_messages_in_many_pieces_of_tcp_are_taken(server: EmbeddedServer, chop: int) -> None:
    async with wired(server) as wire:
        await wire.send(frame(Op.TEXT, padded(2**20)), chop=chop)
        await pong(wire)


async def test_a_thousand_messages_in_one_piece_are_all_answered(server: EmbeddedServer) -> None:
    """9.7, without waiting for the answers between."""
    async with wired(server) as wire:
        await wire.send(*[frame(Op.TEXT, PING_TASK)] * 1000)
        for _ in range(1000):
            await pong(wire)


# 12 and 13: compression, which is not offered


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits=9, permessage-deflate",
        "x-webkit-deflate-frame",
        "permessage-deflate; unknown=1; server_max_window_bits=99",
    ],
)
async def test_an_extension_that_is_offered_is_not_taken(server: EmbeddedServer, offer: str) -> None:
    async with wired(server, Sec_WebSocket_Extensions=offer) as wire:
        assert "sec-websocket-extensions" not in wire.handshake.headers
        await works(wire)
        await wire.send(frame(Op.TEXT, b"\xca\x48\xcd\xc9\xc9\x07\x00", rsv=4))  # "Hello", deflated
        assert await wire.closed() == 1002


# The handshake, section 4.2


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({"without": "Sec-WebSocket-Key"}, 400, id="no key"),
        pytest.param({"Sec_WebSocket_Key": "c2hvcnQ="}, 400, id="a short key"),
        pytest.param({"Sec_WebSocket_Key": "!" * 24}, 400, id="a key that is not base64"),
        pytest.param(
            {"Sec_WebSocket_Key": f"{KEY_OF_THE_RFC}\r\nSec-WebSocket-Key: {KEY_OF_THE_RFC}"},
            400,
            id="two keys",
        ),
        pytest.param({"without": "Sec-WebSocket-Version"}, 400, id="no version"),
        pytest.param({"Sec_WebSocket_Version": "8"}, 426, id="an old version"),
        pytest.param({"Sec_WebSocket_Version": "14"}, 426, id="a later version"),
        pytest.param({"Sec_WebSocket_Version": "x"}, 426, id="a version that is no number"),
        pytest.param({"Sec_WebSocket_Version": "13, 8"}, 426, id="two versions"),
        pytest.param({"Sec_WebSocket_Version": "13\r\nSec-WebSocket-Version: 8"}, 426, id="two headers"),
        pytest.param({"request_line": "GET /v1\xff HTTP/1.1"}, 400, id="a path that is not ASCII"),
        pytest.param({"request_line": "GET /elsewhere HTTP/1.1"}, 403, id="another path"),
        pytest.param({"request_line": "PUT /v1 HTTP/1.1"}, 405, id="another method"),
        pytest.param({"Sec_WebSocket_Protocol": ";;;"}, 400, id="a broken subprotocol"),
        pytest.param({"Transfer_Encoding": "chunked"}, 400, id="a body"),
        pytest.param({"Cookie": "x" * 9000}, 431, id="a header that is too long"),
        pytest.param({f"X-{number}": "y" for number in range(200)}, 431, id="too many headers"),
        pytest.param({"request_line": f"GET /v1?{'x' * 9000} HTTP/1.1"}, 414, id="a path that is too long"),
    ],
)
async def test_a_bad_handshake_is_refused_and_leaves_nothing(
    server: EmbeddedServer, changes: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with wired(server, **changes) as wire:
        assert wire.handshake.status == status
        if status == 426:
            assert wire.handshake.headers["sec-websocket-version"] == "13"
            assert wire.handshake.headers["upgrade"] == "websocket"
    async with wired(server) as wire:
        await works(wire)
    await until(lambda: not server._server.server_state.connections)  # it is not waited for at a stop
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("without", ["Upgrade", "Connection"])
async def test_without_upgrade_it_is_a_plain_request(server: EmbeddedServer, without: str) -> None:
    async with wired(server, without=without) as wire:
        assert wire.handshake.status == 405


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "upgrade"},
        {"request_line": "GET /v1?x=y HTTP/1.1"},
        {"request_line": "GET / HTTP/1.1"},
        {"X_Custom": "caf\xe9"},
        {"Cookie": "x" * 4000},
        {"Sec_WebSocket_Extensions": ";;;"},
    ],
    ids=str,
)
async def test_a_handshake_may_be_spelt_otherwise(server: EmbeddedServer, changes: dict[str, Any]) -> None:
    async with wired(server, **changes) as wire:
        assert wire.handshake.status == 101
        await works(wire)


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (None, None),
        ("soap", None),
        ("soap, wamp", None),
        ("TILEWIRE.MSGPACK", None),
        ("tilewire.msgpack", "tilewire.msgpack"),
        ("soap, tilewire.msgpack, wamp", "tilewire.msgpack"),
        ("soap\r\nSec-WebSocket-Protocol: tilewire.msgpack", "tilewire.msgpack"),
    ],
)
async def test_only_a_known_subprotocol_is_agreed_on(
    server: EmbeddedServer, offered: str | None, agreed: str | None
) -> None:
    headers = {"Sec_WebSocket_Protocol": offered} if offered else {}
    async with wired(server, authenticate=False, **headers) as wire:
        assert wire.handshake.headers.get("sec-websocket-protocol") == agreed
        if agreed:
            authentication = msgspec.msgpack.encode(json.loads(AUTHENTICATION))
            await wire.send(frame(Op.BINARY, authentication))
            assert msgspec.msgpack.decode(await wire.message())["data"][0]["taskType"] == "authentication"
        else:
            await wire.send(frame(Op.TEXT, AUTHENTICATION))
            assert json.loads(await wire.message())["data"][0]["taskType"] == "authentication"

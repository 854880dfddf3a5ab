"""Frames that nobody should send: plausible ones, made of the real task types, then spoilt in many ways.

All is decided by a seed and the number of the batch, so that any frame can be made again.
"""

import base64
import json
import random
import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from msgspec import inspect

from server.protocol.requests import TASK_CLASSES
from tests.server.support.harness import FAST_MODEL, KEY, make_image

__all__ = ["CHANNELS", "Batch", "Channel", "Frame", "batches"]

Channel = Literal[
    "socket, JSON",
    "socket, MessagePack",
    "POST, JSON",
    "POST, MessagePack",
    "stranger, JSON",
    "stranger, MessagePack",
]
CHANNELS: Final[tuple[Channel, ...]] = (
    *("socket, JSON",) * 4,
    *("socket, MessagePack",) * 4,
    "POST, JSON",
    "POST, MessagePack",
    "stranger, JSON",
    "stranger, MessagePack",
)
"""How frames are sent, each as often as is its share. Strangers have not authenticated."""

IMAGE: Final = make_image(4, 4)
_FRAMES_OF_A_BATCH: Final = 25
_TASKS: Final = inspect.multi_type_info(TASK_CLASSES)
_NAMES: Final = sorted({field.encode_name for task in _TASKS for field in task.fields})  # type: ignore[attr-defined]
_TAGS: Final = [str(task.tag) for task in _TASKS]  # type: ignore[attr-defined]


class Fields(list[tuple[Any, Any]]):
    """An object, with its fields in order. A name may occur twice, and need not be a string."""


class Verbatim(bytes):
    """A value that is already encoded, or is not anything."""


@dataclass(frozen=True)
class Frame:
    """What is sent as one message or body; `text`: as a text frame."""

    data: bytes
    text: bool

    def __str__(self) -> str:
        return f"{'text' if self.text else 'binary'} {self.data!r}"


@dataclass(frozen=True)
class Batch:
    """Frames that follow each other on one connection."""

    number: int
    channel: Channel
    frames: tuple[Frame, ...]

    @property
    def binary(self) -> bool:
        """Whether the format is MessagePack."""
        return self.channel.endswith("MessagePack")


def batches(seed: int, count: int) -> Iterator[Batch]:
    """`count` frames in all."""
    for number in range(-(-count // _FRAMES_OF_A_BATCH)):
        rng = random.Random(f"{seed}/{number}")
        channel = rng.choice(CHANNELS)
        author = _Author(rng, binary=channel.endswith("MessagePack"))
        size = min(_FRAMES_OF_A_BATCH, count - number * _FRAMES_OF_A_BATCH)
        yield Batch(number, channel, tuple(author.frame() for _ in range(size)))


class _Author:
    """Writes frames. UUIDs of tasks and sessions recur within a batch."""

    def __init__(self, rng: random.Random, *, binary: bool) -> None:
        self._rng = rng
        self._binary = binary
        self._hostile = _HOSTILE_MESSAGEPACK if binary else _HOSTILE_JSON
        self._encode = _messagepack if binary else _json
        self._uuids = [self._uuid() for _ in range(6)]
        self._sessions = [self._uuid() for _ in range(2)]

    def frame(self) -> Frame:
        rng = self._rng
        tasks: Any = [self._task() for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            tasks = rng.choice(_MUTATIONS)(self, tasks)
        if rng.random() < 0.0003:
            tasks = [self._small_task() for _ in range(rng.choice((1000, 5000, 2**14, 2**14 + 1)))]
        data = self._encode(tasks)
        while rng.random() < 0.3:
            data = self._damaged(data)
        return Frame(data, text=self._binary == (rng.random() < 0.03))

    def _task(self) -> Fields:
        kind: Any = self._rng.choice(_TASKS)
        fields = Fields([("taskType", kind.tag)])
        more = self._rng.choice((0.0, 0.05, 0.3))
        for field in kind.fields:
            if field.required or self._rng.random() < more:
                fields.append((field.encode_name, self._value(field.encode_name, field.type)))
        if kind.tag in ("upscale", "imageUpscale"):
            if "inputs" not in dict(fields):
                fields.append(("inputImage", self._image()))
            fields.append(("model", FAST_MODEL))  # twice, if it was there: the last one counts
        if self._rng.random() < 0.3:
            self._rng.shuffle(fields)
        return fields

    def _small_task(self) -> Fields:
        return Fields([("taskType", self._rng.choice(("ping", "cancel", ""))), ("taskUUID", self._uuid())])

    def _value(self, name: str, kind: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 - one line for each type
        rng = self._rng
        match kind:
            case inspect.Metadata():
                return self._value(name, kind.type)
            case inspect.UnionType():
                return self._value(name, rng.choice(kind.types))
            case inspect.StructType():
                return Fields(
                    [
                        (f.encode_name, self._value(f.encode_name, f.type))
                        for f in kind.fields
                        if rng.random() < 0.7
                    ]
                )
            case inspect.EnumType():
                return rng.choice(list(kind.cls)).value
            case inspect.LiteralType():
                return rng.choice(kind.values)
            case inspect.ListType():
                return [self._value(name, kind.item_type) for _ in range(rng.randrange(1, 4))]
            case inspect.IntType():
                return rng.choice((1, 2, 20, 99, 2**31, kind.ge or 0, kind.le or 2**63))
            case inspect.FloatType():
                return rng.choice((2, 1.5, 4, 0.001, 1e-9, 1e6, 3.999))
            case inspect.BoolType():
                return rng.random() < 0.5
            case inspect.RawType():
                return self._image()
            case inspect.DictType():
                return Fields([(rng.choice(_NAMES), self._anything())])
            case inspect.NoneType():
                return None
            case _:
                return self._text(name)

    def _text(self, name: str) -> str:
        rng = self._rng
        if name in ("taskUUID", "targetTaskUUID"):
            return rng.choice(self._uuids) if rng.random() < 0.2 else self._uuid()
        if name == "apiKey":
            return rng.choice((KEY, KEY, "tw_wrong"))
        if name == "connectionSessionUUID":
            return rng.choice(self._sessions)
        if name.endswith(("URL", "Endpoint")):
            return rng.choice(
                ("http://127.0.0.1:1/a", "https://[::1]:1/", "http://0x7f000001/", "ftp://127.0.0.1/")
            )
        return rng.choice(
            (FAST_MODEL, "getDetails", "tw_wrong", "upscaler", "esrgan", "", "x\u0000y", "\U0001f600")
        )

    def _image(self) -> Any:
        encoded = base64.b64encode(IMAGE).decode()
        return self._rng.choice(
            (
                self._uuid(),
                self._text("url"),
                "http://127.0.0.1:1/a.png",
                f"data:image/png;base64,{encoded}",
                encoded if self._rng.random() < 0.3 else encoded[:40],
                IMAGE,
                self._pixels(),
                "data:,",
                "AAAA",
            )
        )

    def _pixels(self) -> Fields:
        """Of raw pixels a picture, whose size is right as often as not."""
        rng = self._rng
        width, height, channels = rng.choice((1, 3, 8)), rng.choice((1, 2, 8)), rng.choice((1, 3, 4))
        size = rng.choice((width * height * channels, 0, 1, 2**16))
        sides = (("width", width), ("height", height), ("channels", channels))
        return Fields([*sides, ("pixels", bytes(size))])

    def _anything(self) -> Any:
        rng = self._rng
        return rng.choice(
            (
                None,
                rng.random() < 0.5,
                rng.choice((0, -1, 2**31, 2**63, 2**64 - 1, -(2**63), 10**30)),
                rng.choice((0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"))),
                rng.choice(
                    ("", ".", "a URL", "\ud800", "\u0000", "é" * 300, "." * rng.choice((10, 1000, 300_000)))
                ),
                [],
                Fields(),
                [None] * 3,
                Fields([(rng.choice(_NAMES), 1)]),
                bytes(rng.randrange(4)),
                Verbatim(rng.choice(self._hostile)),
                Verbatim(rng.choice(self._hostile)),
            )
        )

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _damaged(self, data: bytes) -> bytes:
        """Some bytes removed, doubled, replaced or flipped, or the rest cut off."""
        rng = self._rng
        if not data:
            return rng.randbytes(rng.randrange(6))
        start = rng.randrange(len(data))
        stop = min(len(data), start + rng.randrange(1, 9))
        piece = rng.choice(
            (
                b"",
                data[start:stop] * 2,
                rng.randbytes(rng.randrange(1, 5)),
                bytes((data[start] ^ (1 << rng.randrange(8)),)) + data[start + 1 : stop],
                rng.choice(self._hostile),
            )
        )
        return data[:start] + piece + (b"" if rng.random() < 0.15 else data[stop:])

    # Each takes the tasks of a frame and gives them spoilt.

    def retype(self, tasks: Any) -> Any:
        """A field of a wrong type."""
        if fields := self._some_fields(tasks):
            place = self._rng.randrange(len(fields))
            fields[place] = (fields[place][0], self._anything())
        return tasks

    def drop(self, tasks: Any) -> Any:
        """A field is missing."""
        if fields := self._some_fields(tasks):
            del fields[self._rng.randrange(len(fields))]
        return tasks

    def add(self, tasks: Any) -> Any:
        """A field of another task, an unknown one, or one that nearly is one."""
        rng, name = self._rng, self._rng.choice(_NAMES)
        place = rng.randrange(len(name))
        near = name[:place] + name[place + 1 :] if rng.random() < 0.5 else name.lower()
        key: Any = rng.choice((name, near, near, rng.choice(("", "x" * 1000, "\u0000", "\ud800", 1, None))))
        if (fields := self._some_fields(tasks)) is not None:
            fields.insert(rng.randrange(len(fields) + 1), (key, self._anything()))
        return tasks

    def double(self, tasks: Any) -> Any:
        """A field twice, with two values."""
        if fields := self._some_fields(tasks):
            name, value = self._rng.choice(fields)
            fields.append((name, self._rng.choice((value, self._anything()))))
        return tasks

    def retag(self, tasks: Any) -> Any:
        """A task of another type than its fields belong to, or of none."""
        if (fields := self._some_fields(tasks)) is not None:
            tag = self._rng.choice((*_TAGS, "imageInference", "", self._anything()))
            fields[:] = [field for field in fields if field[0] != "taskType"] + [("taskType", tag)]
        return tasks

    def rename(self, tasks: Any) -> Any:
        """A UUID that is none, is spelt otherwise, or was used before."""
        rng, good = self._rng, self._rng.choice(self._uuids)
        spelt = rng.choice(
            (good, good.upper(), f"{{{good}}}", good.replace("-", ""), good + " ", good[:8], good * 9)
        )
        name = rng.choice(("taskUUID", "targetTaskUUID", "connectionSessionUUID", "inputImage"))
        if (fields := self._some_fields(tasks)) is not None:
            fields[:] = [field for field in fields if field[0] != name] + [(name, spelt)]
        return tasks

    def reshape(self, tasks: Any) -> Any:
        """Something else than an array of objects."""
        rng = self._rng
        return rng.choice(
            (
                tasks[0] if isinstance(tasks, list) and tasks else tasks,
                [tasks],
                [],
                self._anything(),
                [*(tasks if isinstance(tasks, list) else []), self._anything(), self._anything()],
                Fields([("data", tasks)]),
            )
        )

    def crowd(self, tasks: Any) -> Any:
        """Very many fields."""
        if (fields := self._some_fields(tasks)) is not None and self._rng.random() < 0.05:
            fields.extend(
                (f"{self._rng.choice(_NAMES)}{n}", n) for n in range(self._rng.choice((50, 2**14, 2**14 + 1)))
            )
        return tasks

    def again(self, tasks: Any) -> Any:
        """The same task twice, or nearly the same."""
        if isinstance(tasks, list) and not isinstance(tasks, Fields) and tasks and len(tasks) < 10:
            task = self._rng.choice(tasks)
            return [*tasks, Fields(task) if isinstance(task, Fields) else task]
        return tasks

    def _some_fields(self, tasks: Any) -> Fields | None:
        """An object of the frame: a task, or one within."""
        found = list(_objects(tasks))
        return self._rng.choice(found) if found else None


_MUTATIONS: Final[tuple[Callable[[_Author, Any], Any], ...]] = (
    _Author.retype,
    _Author.retype,
    _Author.drop,
    _Author.add,
    _Author.double,
    _Author.retag,
    _Author.rename,
    _Author.reshape,
    _Author.crowd,
    _Author.again,
)


def _objects(value: Any) -> Iterator[Fields]:
    if isinstance(value, Fields):
        yield value
        for _, inner in value:
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _json(value: Any) -> bytes:
    match value:
        case Verbatim():
            return bytes(value)
        case bytes():
            return json.dumps(base64.b64encode(value).decode()).encode()
        case Fields():
            names = (json.dumps(name if isinstance(name, str) else str(name)).encode() for name, _ in value)
            pairs = zip(names, (_json(inner) for _, inner in value), strict=True)
            return b"{" + b",".join(b":".join(pair) for pair in pairs) + b"}"
        case list() | tuple():
            return b"[" + b",".join(map(_json, value)) + b"]"
        case _:
            return json.dumps(value).encode()


def _messagepack(value: Any) -> bytes:
    match value:
        case Verbatim():
            return bytes(value)
        case str():
            data = value.encode("utf-8", "surrogatepass")
            return (
                msgspec.msgpack.encode(value)
                if _is_utf8(value)
                else struct.pack(">BI", 0xDB, len(data)) + data
            )
        case Fields():
            head = struct.pack(">BI", 0xDF, len(value)) if len(value) > 15 else bytes((0x80 | len(value),))
            return head + b"".join(_messagepack(part) for pair in value for part in pair)
        case list() | tuple():
            head = struct.pack(">BI", 0xDD, len(value)) if len(value) > 15 else bytes((0x90 | len(value),))
            return head + b"".join(map(_messagepack, value))
        case int() if not -(2**63) <= value < 2**64:
            return msgspec.msgpack.encode(float(value))
        case _:
            return msgspec.msgpack.encode(value)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


_HOSTILE_JSON: Final = (
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"-0",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"0x10",
        b"9" * 5000,
        b"-" + b"9" * 400,
    ),
    *(b"1e-400", b"1" + b"0" * 308 + b".5", b"0." + b"0" * 2000 + b"1"),
    *(
        rb'"\ud800"',
        rb'"\udc00\ud800"',
        rb'"\ud83d\ude00"',
        rb'"\u12"',
        rb'"\x41"',
        rb'"\u0000"',
        b'"\x00"',
        b'"\n"',
    ),
    *(
        b'"\xff\xfe"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xe2\x82"',
        b"\xef\xbb\xbf1",
    ),
    *(
        b"",
        b'"',
        b"tru",
        b"nul",
        b"'x'",
        b"/*x*/1",
        b"[",
        b"{",
        b"}",
        b"]",
        b",",
        b"[1,]",
        b'{"a":1,}',
        b'{"a" 1}',
        b"undefined",
    ),
    *(b"[" * 2000 + b"]" * 2000, b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 3000, b'{"":' * 3000),
    *(b'{"image":[' * 300 + b"1" + b"]}" * 300, b"\xff\xfe[\x00]\x00", b"\x1f\x8b\x08\x00"),
)

_HOSTILE_MESSAGEPACK: Final = (
    *(
        b"\xc1",
        b"",
        b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
        b"\xcb\xff\xf0\x00\x00\x00\x00\x00\x00",
        b"\xca\x7f\xc0\x00\x00",
    ),
    # Lengths of 4 GiB, and nothing behind them.
    *(
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
    ),
    *(
        b"\xdc\xff\xff",
        b"\xde\xff\xff",
        b"\xda\xff\xff",
        b"\xc5\xff\xff",
        b"\xc8\xff\xff\x05",
        b"\xd9\xff",
        b"\xc4\xff",
    ),
    # Extensions: unknown ones, and timestamps (type -1), good and bad.
    *(b"\xd4\x05\x00", b"\xd8\x7f" + bytes(16), b"\xc7\x03\x05abc", b"\xc7\x00\x05"),
    *(
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xd7\xff" + b"\xff" * 8,
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\xc7\x0c\xff\x00\x00\x00\x00" + b"\x7f" * 8,
    ),
    *(b"\xd4\xff\x00", b"\xc7\x01\xff\x00"),
    *(b"\xa3\xff\xfe\xfd", b"\xa3\xed\xa0\x80", b"\xa2\xc0\x80", b"\xa4\xf4\x90\x80\x80", b"\xd9\x01\xff"),
    *(
        b"\xcf" + b"\xff" * 8,
        b"\xd3\x80" + bytes(7),
        b"\xcd\x00\x01",
        b"\xd3" + bytes(7) + b"\x01",
        b"\xdb\x00\x00\x00\x01x",
    ),
    *(
        b"\x81\xc0\xc0",
        b"\x81\x90\xc0",
        b"\x81\x80\xc0",
        b"\x81\xcb\x7f\xf8" + bytes(6) + b"\xc0",
        b"\x82\xa1a\x01\xa1a\x02",
    ),
    *(b"\x91" * 3000 + b"\xc0", b"\x81\xa1a" * 3000 + b"\xc0", b"\x91" * 3000, b"\x81\x91" * 500),
    *(
        b"\xc4\x00",
        b"\xc4\x03abc",
        b"\xc6\x00\x00\x00\x01x",
        b"\xdd\x00\x00\x00\x00",
        b"\xdf\x00\x00\x00\x00",
    ),
)

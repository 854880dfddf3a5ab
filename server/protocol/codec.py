"""Frames to tasks and items to frames, in JSON or MessagePack.

A frame is first split into its tasks, each still undecoded, so that a broken one fails alone and its error
can still name its `taskUUID`. Then each task is decoded straight into its Struct.

Frames come from anyone, before authentication too: whatever they hold, they become tasks or errors, at little
cost of time and of memory (`bounds`).
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from server.protocol.bounds import SetAside, check_values, set_aside
from server.protocol.errors import ErrorItem, FrameError
from server.protocol.raw_task import RawTask
from server.protocol.requests import TASK_CLASSES

__all__ = ["JSON", "MESSAGEPACK", "SUBPROTOCOL", "Codec", "RawTask", "data_uri", "encode_reply"]

SUBPROTOCOL: Final = "tilewire.msgpack"
"""The WebSocket subprotocol of MessagePack frames; without it frames are JSON."""

# An element of an array or object takes two bytes of a frame, but a hundred in memory once it is split off.
_MAX_TASKS: Final = 2**14
_MAX_FIELDS: Final = 2**8

_TEXT_OR_BYTES: Final = frozenset({*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB})
"""How strings and bytes begin in MessagePack."""


class Codec:
    """One wire format. Compared with plain decoding it never fails as a whole for the sake of one task.

    Attributes:
        binary: whether frames are binary.
        media_type: of an HTTP body.
        decoders: by taskType.
    """

    def __init__(self, module: Any, media_type: str, *, binary: bool) -> None:
        self.binary = binary
        self.media_type = media_type
        self.decoders: dict[str, _Decoder] = {}
        for task in TASK_CLASSES:
            tag = str(task.__struct_config__.tag)
            self.decoders[tag] = _Decoder(module.Decoder(task, strict=True))
        self._list = _Decoder(module.Decoder(Annotated[list[Raw], Meta(max_length=_MAX_TASKS)]))
        self._fields = _Decoder(module.Decoder(Annotated[dict[str, Raw], Meta(max_length=_MAX_FIELDS)]))
        self._text = _Decoder(module.Decoder(str))
        self._anything = _Decoder(module.Decoder())
        self._encoder = module.Encoder(decimal_format="number")

    def split(self, frame: bytes | str) -> Iterator[RawTask]:
        """Give the tasks of a frame: of an array, or a single one.

        Raises:
            FrameError: at once, if the frame is neither, or has too much of something.
        """
        rest, aside = self._bounded(frame)
        try:
            raws: list[Raw] = self._list.decode(rest)
        except msgspec.ValidationError as error:  # it is no array; perhaps a single task
            raws = [self._single(rest, error)]
        except msgspec.DecodeError as error:
            raise self._not_tasks(error) from error
        return (RawTask(self, raw, aside) for raw in raws)

    def fields(self, raw: Raw) -> dict[str, Raw]:
        """Give the fields of an object, undecoded."""
        fields: dict[str, Raw] = self._fields.decode(raw)
        return fields

    def text(self, raw: Raw) -> str:
        """Give a string."""
        text: str = self._text.decode(raw)
        return text

    def text_or_bytes(self, raw: Raw) -> str | bytes | None:
        """Give a string or, in MessagePack, bytes; None if it is neither.

        Raises:
            DecodeError: if it is a string that is not UTF-8, or not JSON's.
        """
        first = memoryview(raw)[0]
        if not (first in _TEXT_OR_BYTES if self.binary else first == ord('"')):
            return None  # what it is instead may be large
        value: str | bytes = self._anything.decode(raw)
        return value

    def data(self, items: Sequence[Struct]) -> bytes:
        """Encode a frame of results."""
        frame: bytes = self._encoder.encode({"data": items})
        return frame

    def errors(self, items: Sequence[ErrorItem]) -> bytes:
        """Encode a frame of errors."""
        frame: bytes = self._encoder.encode({"errors": items})
        return frame

    def encode(self, value: Any) -> bytes:
        """Encode anything else, such as an HTTP body that holds both."""
        encoded: bytes = self._encoder.encode(value)
        return encoded

    def _bounded(self, frame: bytes | str) -> tuple[bytes, SetAside]:
        if not self.binary:
            try:
                return set_aside(frame.encode() if isinstance(frame, str) else frame)
            except UnicodeEncodeError as error:
                raise FrameError("text must be UTF-8") from error
        if isinstance(frame, str):
            raise FrameError("MessagePack must be sent in binary frames")
        check_values(frame)
        return frame, SetAside(frame, [])

    def _single(self, frame: bytes, reason: msgspec.DecodeError) -> Raw:
        """The one task that a frame is."""
        try:
            self._fields.decode(frame)
        except msgspec.ValidationError:
            raise self._not_tasks(reason) from reason
        except msgspec.DecodeError as error:
            raise self._not_tasks(error) from error
        return Raw(frame)

    def _not_tasks(self, reason: msgspec.DecodeError) -> FrameError:
        form = "MessagePack" if self.binary else "JSON"
        return FrameError(f"the frame must be a {form} array of task objects ({reason})")


class _Decoder:
    """A decoder of msgspec's that fails in one way only."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def decode(self, data: Any) -> Any:
        """Decode a value.

        Raises:
            DecodeError: also for text that is not UTF-8, and for values nested too deeply.
        """
        try:
            return self._decoder.decode(data)
        except UnicodeError as error:
            raise msgspec.DecodeError("text must be UTF-8") from error
        except RecursionError as error:
            raise msgspec.DecodeError("the value is nested too deeply") from error


JSON: Final = Codec(msgspec.json, "application/json", binary=False)
MESSAGEPACK: Final = Codec(msgspec.msgpack, "application/msgpack", binary=True)

Reply = Struct
"""What the server sends: an item of `data`, or an `ErrorItem`."""


def encode_reply(codec: Codec, reply: Reply) -> bytes:
    """Encode one item as a frame of its own: success and failure are never in one frame."""
    return codec.errors([reply]) if isinstance(reply, ErrorItem) else codec.data([reply])


def data_uri(media_type: str, data: bytes) -> str:
    """Give the data as a URI (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"

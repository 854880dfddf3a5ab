"""Frames to tasks and items to frames, in JSON or MessagePack.

A frame is first split into its tasks, each still undecoded, so that a broken one fails alone and its error
can still name its `taskUUID`. Then each task is decoded straight into its Struct.

Frames come from anyone, before authentication too: whatever they hold, they become tasks or errors, and cost
memory in proportion to their size.
"""

import base64
import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Raw, Struct

from server.protocol.errors import ErrorItem, FrameError, ParameterError, invalid, missing
from server.protocol.requests import (
    AccountManagement,
    Authentication,
    Cancel,
    GetResponse,
    ImageUpload,
    ImageUpscale,
    ModelSearch,
    Ping,
    Task,
    Upscale,
)
from server.protocol.text import find_control_character

__all__ = [
    "JSON",
    "MESSAGEPACK",
    "SUBPROTOCOL",
    "Codec",
    "RawTask",
    "as_parameter_error",
    "data_uri",
    "encode_reply",
    "is_uuid",
    "refuse_control_characters",
]

SUBPROTOCOL: Final = "tilewire.msgpack"
"""The WebSocket subprotocol of MessagePack frames; without it frames are JSON."""

TASK_CLASSES: Final[tuple[type[Task], ...]] = (
    Authentication,
    Ping,
    ImageUpload,
    ImageUpscale,
    Upscale,
    GetResponse,
    AccountManagement,
    ModelSearch,
    Cancel,
)

# A UUID is optional for these; they are about the connection, not about work.
_WITHOUT_UUID: Final = frozenset({"authentication", "ping"})

# An element of an array or object takes two bytes of a frame, but a hundred in memory once it is split off.
_MAX_TASKS: Final = 2**14
_MAX_FIELDS: Final = 2**14
_MAX_COMMAS: Final = 2**20

# What is told back of a name that the client chose, and how many unknown ones are looked at.
_MAX_NAME: Final = 128
_MAX_UNKNOWN: Final = 16


class RawTask:
    """One task of a frame, not decoded yet.

    Attributes:
        codec: of the frame.
        task_type, task_uuid: as far as they could be read, and cut where they are absurdly long, for errors.
    """

    __slots__ = ("_fields", "_raw", "codec", "task_type", "task_uuid")

    def __init__(self, codec: "Codec", raw: Raw) -> None:
        self.codec = codec
        self._raw = raw
        self.task_type: str | None = None
        self.task_uuid: str | None = None
        try:
            self._fields: dict[str, Raw] | None = codec.fields(raw)
        except msgspec.DecodeError:
            self._fields = None
        else:
            self.task_type = self._text("taskType")
            self.task_uuid = self._text("taskUUID")

    def parse(self) -> Task:
        """The decoded task.

        Raises:
            ParameterError: names the first parameter that is missing or wrong.
        """
        if self._fields is None:
            raise invalid("task", f"each task must be an object of at most {_MAX_FIELDS} fields", "object")
        if self.task_type is None:
            if "taskType" in self._fields:
                raise invalid("taskType", "taskType must be a string", "string")
            raise missing("taskType")
        self._check_uuid()
        decoder = self.codec.decoders.get(self.task_type)
        if decoder is None:
            raise ParameterError(
                "unsupportedTaskType",
                f"{self.task_type!r} is not offered; offered are: {', '.join(self.codec.decoders)}",
                "taskType",
            )
        try:
            task: Task = decoder.decode(self._raw)
        except msgspec.DecodeError as error:
            raise as_parameter_error(str(error)) from error
        refuse_control_characters(task)
        return task

    def misspelt(self) -> list[str]:
        """A warning for each unknown field whose name nearly is that of a known one."""
        known = self.codec.field_names.get(self.task_type or "", frozenset())
        unknown = [name for name in (self._fields or {}).keys() - known if len(name) <= _MAX_NAME]
        warnings = []
        for name in sorted(unknown)[:_MAX_UNKNOWN]:  # equal tasks, equal requests
            if near := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
                warnings.append(f"unknown parameter {name!r} was ignored; did you mean {near[0]!r}?")
        return warnings

    def _text(self, name: str) -> str | None:
        raw = (self._fields or {}).get(name)
        try:
            return None if raw is None else self.codec.text(raw)[:_MAX_NAME]
        except msgspec.DecodeError:
            return None

    def _check_uuid(self) -> None:
        if self._fields is None or self.task_type in _WITHOUT_UUID:
            return
        if "taskUUID" not in self._fields:
            raise missing("taskUUID")
        if self.task_uuid is None:
            raise invalid("taskUUID", "taskUUID must be a string", "string")
        if not is_uuid(self.task_uuid):
            raise invalid("taskUUID", f"{self.task_uuid[:64]!r} is not a UUID", "UUID")


class Codec:
    """One wire format. Compared with plain decoding it never fails as a whole for the sake of one task.

    Attributes:
        binary: whether frames are binary.
        media_type: of an HTTP body.
        decoders: by taskType.
        field_names: the known names by taskType.
    """

    def __init__(self, module: Any, media_type: str, *, binary: bool) -> None:
        self.binary = binary
        self.media_type = media_type
        self.decoders: dict[str, _Decoder] = {}
        self.field_names: dict[str, frozenset[str]] = {}
        for task in TASK_CLASSES:
            tag = str(task.__struct_config__.tag)
            self.decoders[tag] = _Decoder(module.Decoder(task, strict=True))
            self.field_names[tag] = frozenset((*task.__struct_encode_fields__, "taskType"))
        self._list = _Decoder(module.Decoder(Annotated[list[Raw], Meta(max_length=_MAX_TASKS)]))
        self._fields = _Decoder(module.Decoder(Annotated[dict[str, Raw], Meta(max_length=_MAX_FIELDS)]))
        self._text = _Decoder(module.Decoder(str))
        self._anything = _Decoder(module.Decoder())
        self._encoder = module.Encoder(decimal_format="number")

    def split(self, frame: bytes | str) -> list[RawTask]:
        """The tasks of a frame: of an array, or a single one.

        Raises:
            FrameError: if the frame is neither, or has too many of them.
        """
        self._check_form(frame)
        try:
            return [RawTask(self, raw) for raw in self._list.decode(frame)]
        except msgspec.ValidationError as error:
            reason: msgspec.DecodeError = error  # it is no array; perhaps a single task
        except msgspec.DecodeError as error:
            raise self._not_tasks(error) from error
        try:
            self._fields.decode(frame)
        except msgspec.ValidationError:
            raise self._not_tasks(reason) from reason
        except msgspec.DecodeError as error:
            raise self._not_tasks(error) from error
        return [RawTask(self, Raw(frame))]

    def fields(self, raw: Raw) -> dict[str, Raw]:
        """The fields of an object, undecoded."""
        fields: dict[str, Raw] = self._fields.decode(raw)
        return fields

    def text(self, raw: Raw) -> str:
        """A string."""
        text: str = self._text.decode(raw)
        return text

    def text_or_bytes(self, raw: Raw) -> str | bytes | None:
        """A string or, in MessagePack, bytes; None if it is neither."""
        value = self._anything.decode(raw)
        return value if isinstance(value, str | bytes) else None

    def data(self, items: Sequence[Struct]) -> bytes:
        """A frame of results."""
        frame: bytes = self._encoder.encode({"data": items})
        return frame

    def errors(self, items: Sequence[ErrorItem]) -> bytes:
        """A frame of errors."""
        frame: bytes = self._encoder.encode({"errors": items})
        return frame

    def encode(self, value: Any) -> bytes:
        """Anything else, such as an HTTP body that holds both."""
        encoded: bytes = self._encoder.encode(value)
        return encoded

    def _check_form(self, frame: bytes | str) -> None:
        """Refuse what is better not decoded. In MessagePack lengths come first: decoding stops at once."""
        if self.binary:
            if isinstance(frame, str):
                raise FrameError("MessagePack must be sent in binary frames")
            return
        commas = frame.count(",") if isinstance(frame, str) else frame.count(b",")
        if commas > _MAX_COMMAS:
            raise FrameError(f"the frame has more than {_MAX_COMMAS} values")

    def _not_tasks(self, reason: msgspec.DecodeError) -> FrameError:
        form = "MessagePack" if self.binary else "JSON"
        return FrameError(f"the frame must be a {form} array of task objects ({reason})")


class _Decoder:
    """A decoder of msgspec's that fails in one way only."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def decode(self, data: Any) -> Any:
        """The decoded value.

        Raises:
            DecodeError: also for text that is not UTF-8, and for values nested too deeply.
        """
        try:
            return self._decoder.decode(data)
        except UnicodeError as error:
            raise msgspec.DecodeError("text must be UTF-8") from error
        except RecursionError as error:
            raise msgspec.DecodeError("the value is nested too deeply") from error


def refuse_control_characters(value: Any, name: str = "") -> None:
    """See to it that no text within a value, called `name`, holds a control character.

    Raises:
        ParameterError: naming the first one that does.
    """
    if (found := find_control_character(value, name)) is not None:
        path, character = found
        raise invalid(path, f"{path} holds the control character U+{ord(character):04X}", "string")


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical form of 36 characters (RFC 9562 section 4)."""
    try:
        return len(text) == 36 and str(UUID(text)) == text.lower()
    except ValueError:
        return False


_MISSING: Final = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.?(.*)`)?$")
_AT: Final = re.compile(r"^(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)
_EXPECTED: Final = re.compile(r"Expected `([\w| ]+)`")


def as_parameter_error(message: str) -> ParameterError:
    """The parameter error that a message of msgspec's amounts to."""
    if match := _MISSING.match(message):
        return missing(".".join(part for part in (match[2], match[1]) if part))
    match = _AT.match(message)
    reason, path = (match[1], match[2]) if match else (message, None)
    expected = _EXPECTED.search(reason)
    parameter = re.sub(r"\[[^]]*\]", "", path or "task")
    return invalid(parameter, f"{parameter}: {reason[:300]}", expected[1] if expected else None)


JSON: Final = Codec(msgspec.json, "application/json", binary=False)
MESSAGEPACK: Final = Codec(msgspec.msgpack, "application/msgpack", binary=True)

Reply = Struct
"""What the server sends: an item of `data`, or an `ErrorItem`."""


def encode_reply(codec: Codec, reply: Reply) -> bytes:
    """One item as a frame of its own: success and failure are never in one frame."""
    return codec.errors([reply]) if isinstance(reply, ErrorItem) else codec.data([reply])


def data_uri(media_type: str, data: bytes) -> str:
    """The data as a URI (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"

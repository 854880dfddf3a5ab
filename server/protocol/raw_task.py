"""One task of a frame, from the bytes that came to a Struct that is checked against its own type alone."""

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw, Struct, structs

from server.protocol.bounds import MAX_PARAMETER, SetAside
from server.protocol.errors import ParameterError, invalid, missing
from server.protocol.fields import is_uuid
from server.protocol.parameters import accepted_elsewhere, allowed_values, known_names, nearest
from server.protocol.requests import Task
from server.protocol.text import refuse_control_characters

if TYPE_CHECKING:
    from server.protocol.codec import Codec

__all__ = ["RawTask", "as_parameter_error"]

# A UUID is optional for these; they are about the connection, not about work.
_WITHOUT_UUID: Final = frozenset({"authentication", "ping"})

_IMAGES: Final = frozenset({"image", "inputImage", "media"})
"""Parameters whose values may be long."""

# What is quoted back of a name that the client chose, and how many unknown ones there may be.
_MAX_NAME: Final = 128
_MAX_UNKNOWN: Final = 16

_ESCAPED: Final = re.compile(rb"[\\\x7f\xc2]")
"""Without any of these JSON has no control character in its strings (RFC 8259 section 7)."""


class RawTask:
    """One task of a frame, not decoded yet.

    Attributes:
        codec: of the frame.
        task_type, task_uuid: as far as they could be read, for errors; cut where they are absurdly long.
    """

    __slots__ = ("_aside", "_fields", "_raw", "_warnings", "codec", "task_type", "task_uuid")

    def __init__(self, codec: "Codec", raw: Raw, aside: SetAside) -> None:
        self.codec = codec
        self._raw = raw
        self._aside = aside
        self._warnings: list[str] = []
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
        """Decode the task.

        Raises:
            ParameterError: names the first parameter that is missing, wrong, or misspelt.
        """
        if self._fields is None:
            raise invalid("task", "each task must be an object with few fields, and text in UTF-8", "object")
        if self.task_type is None:
            if "taskType" in self._fields:
                raise invalid("taskType", "taskType must be a short string", "string")
            raise missing("taskType")
        self._check_uuid()
        decoder = self.codec.decoders.get(self.task_type)
        if decoder is None:
            raise ParameterError(
                "unsupportedTaskType",
                f"{self.task_type!r} is not offered; offered are: {', '.join(self.codec.decoders)}",
                "taskType",
            )
        self._check_fields(self._fields, "")
        try:
            task = decoder.decode(self._raw)
        except msgspec.DecodeError as error:
            raise as_parameter_error(str(error), self.task_type) from error
        if self.codec.binary or _ESCAPED.search(self._raw):
            refuse_control_characters(task)
        whole: Task = self._with_images(task) if self._aside else task
        return whole

    def warnings(self) -> list[str]:
        """Say which parameters were ignored because they are not known, once the task is parsed."""
        return self._warnings

    def _text(self, name: str) -> str | None:
        raw = (self._fields or {}).get(name)
        if raw is None or self._is_long(raw):
            return None
        try:
            return self.codec.text(raw)[:_MAX_NAME]
        except msgspec.DecodeError:
            return None

    def _check_uuid(self) -> None:
        if self._fields is None or self.task_type in _WITHOUT_UUID:
            return
        if "taskUUID" not in self._fields:
            raise missing("taskUUID")
        if self.task_uuid is None:
            raise invalid("taskUUID", "taskUUID must be a string of 36 characters", "string")
        if not is_uuid(self.task_uuid):
            raise invalid("taskUUID", f"{self.task_uuid[:64]!r} is not a UUID", "UUID")

    def _check_fields(self, fields: dict[str, Raw], path: str) -> None:
        """See that the names are right and the values not too long, in the object at `path`."""
        known = known_names(self.task_type or "", path)
        unknown = sorted(fields.keys() - known)
        if len(unknown) > _MAX_UNKNOWN:
            raise invalid(path or "task", f"there are {len(unknown)} unknown parameters")
        for name in unknown:
            self._check_unknown(name, path, known)
        for name, raw in fields.items():
            inner = f"{path}.{name}" if path else name
            if known_names(self.task_type or "", inner) and (nested := self._object(raw)) is not None:
                self._check_fields(nested, inner)
            elif self._is_long(raw) and not (name in _IMAGES and self._may_be_long(raw)):
                raise invalid(inner[:_MAX_NAME], f"{inner[:_MAX_NAME]} is longer than {MAX_PARAMETER} bytes")

    def _check_unknown(self, name: str, path: str, known: frozenset[str]) -> None:
        if len(name) > _MAX_NAME or self._aside.holds(name):
            raise invalid(path or "task", f"a parameter's name is longer than {_MAX_NAME} characters")
        prefix = f"{path}." if path else ""
        elsewhere = accepted_elsewhere(self.task_type or "", name) if not path else None
        if elsewhere == "":
            return
        if elsewhere is not None:
            hint = f"; did you mean {elsewhere!r}?"
            self._warnings.append(f"unknown parameter {name!r} was ignored{hint}")
            return
        near = nearest(name, known)
        if near is not None or path == "settings":  # what a model is to do with it is not to be ignored
            hint = f"; did you mean {prefix + near!r}?" if near else ""
            raise ParameterError(
                "unsupportedParameter", f"there is no parameter {prefix + name!r}{hint}", prefix + name
            )
        self._warnings.append(f"unknown parameter {prefix + name!r} was ignored")

    def _object(self, raw: Raw) -> dict[str, Raw] | None:
        try:
            return self.codec.fields(raw)
        except msgspec.DecodeError:
            return None  # null, or of a wrong type, which the decoder says

    def _is_long(self, raw: Raw) -> bool:
        return len(memoryview(raw)) > MAX_PARAMETER or self._aside.holds(raw)

    def _may_be_long(self, raw: Raw) -> bool:
        """Whether it is a string, or bytes, of an image; in JSON a long one was set aside."""
        return self.codec.binary or self._aside.whole(raw) is not None

    def _with_images(self, struct: Any) -> Any:
        """The Struct with the images in place of what stands for them."""
        changes: dict[str, Raw | Struct] = {}
        for name in struct.__struct_fields__:
            value = getattr(struct, name)
            if isinstance(value, Raw):
                if self._aside.holds(value) and (whole := self._aside.whole(value)) is not None:
                    changes[name] = whole
            elif isinstance(value, Struct):
                inner = self._with_images(value)
                if inner is not value:
                    changes[name] = inner
        return structs.replace(struct, **changes) if changes else struct


_MISSING: Final = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.?(.*)`)?$")
_AT: Final = re.compile(r"^(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)
_EXPECTED: Final = re.compile(r"Expected `([\w| ]+)`")
_ENUM: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)


def as_parameter_error(message: str, task_type: str = "") -> ParameterError:
    """Give the parameter error that a message of msgspec's amounts to."""
    if match := _MISSING.match(message):
        return missing(".".join(part for part in (match[2], match[1]) if part))
    match = _AT.match(message)
    reason, path = (match[1], match[2]) if match else (message, None)
    expected = _EXPECTED.search(reason)
    parameter = re.sub(r"\[[^]]*\]", "", path or "task")
    if (wrong := _ENUM.match(reason)) and (values := allowed_values(task_type, parameter)):
        reason = f"must be one of {', '.join(values)}, not {wrong[1][:64]}"
        kind = "integer" if all(value.isdecimal() for value in values) else "string"
        return invalid(parameter, f"{parameter} {reason}", kind)
    return invalid(parameter, f"{parameter}: {reason[:300]}", expected[1] if expected else None)

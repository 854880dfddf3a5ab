"""The server's names for things, as far as the client needs them; a test holds both equal."""

from typing import Final
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

__all__ = [
    "SUBPROTOCOL",
    "ErrorItem",
    "Frame",
    "Head",
    "canonical_uuid",
    "decode_frame",
    "decode_head",
    "is_uuid",
    "wire_name",
]

SUBPROTOCOL: Final = "tilewire.msgpack"
"""The WebSocket subprotocol of MessagePack frames."""

_ABBREVIATIONS: Final = {"uuid": "UUID", "url": "URL", "uri": "URI"}


def wire_name(name: str) -> str:
    """Give the camelCase spelling: `task_uuid` → `taskUUID`, `output_format` → `outputFormat`."""
    first, *rest = name.split("_")
    return first + "".join(_ABBREVIATIONS.get(word, word.capitalize()) for word in rest)


def canonical_uuid(value: UUID | str) -> str:
    """Give a UUID in its 36 characters, in lower case.

    Raises:
        ValueError: if it is none.
    """
    try:
        return str(value if isinstance(value, UUID) else UUID(value))
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"a task's UUID must be a UUID, not {str(value)[:64]!r}") from None


def is_uuid(text: str) -> bool:
    """Tell whether `text` is a UUID in its canonical form of 36 characters (RFC 9562 section 4)."""
    try:
        return len(text) == 36 and str(UUID(text)) == text.lower()
    except ValueError:
        return False


class ErrorItem(Struct, frozen=True, kw_only=True, rename=wire_name):
    """One element of `errors`."""

    code: str
    message: str = ""
    parameter: str | None = None
    task_type: str = ""
    task_uuid: str = ""
    retry_after: int | None = None


class Head(Struct, rename=wire_name):
    """What says whose reply an element of `data` is, and whether another follows."""

    task_type: str = ""
    task_uuid: str = ""
    status: str = ""
    connection_session_uuid: str = ""


class Frame(Struct):
    """A message of the server's: replies, still undecoded, or errors."""

    data: list[Raw] = []
    errors: list[ErrorItem] = []


decode_frame: Final = msgspec.msgpack.Decoder(Frame).decode
decode_head: Final = msgspec.msgpack.Decoder(Head).decode

"""From frames to whole messages."""

import codecs
from typing import Final, NamedTuple

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode

__all__ = ["Message", "Messages"]

_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")
_MOST_FRAGMENTS: Final = 2**14
_PIECE: Final = 2**16
"""Bytes that are looked at in one step: all of a large message as text would take a copy, and its time."""


class Message(NamedTuple):
    """A message: what is in it, as it came, and whether it is text (UTF-8) or binary."""

    data: bytes
    is_text: bool


class Messages:
    """Puts the fragments of messages together."""

    def __init__(self, first_size: int) -> None:
        """Wait for the first message.

        Args:
            first_size: bytes that it may have; `websockets` itself bounds all messages alike.
        """
        self._first_size: int | None = first_size
        self._size = 0
        self._fragments: list[bytes] = []
        self._text: codecs.IncrementalDecoder | None = None

    @property
    def authenticated(self) -> bool:
        """Whether the first message has come."""
        return self._first_size is None

    def take(self, frame: Frame) -> Message | None:
        """Give the message that a data frame completes.

        Raises:
            UnicodeDecodeError: at the first byte of a text that is not UTF-8 (RFC 6455 section 8.1).
            PayloadTooBig: if it is the first message, and too large.
            ProtocolError: if it has too many fragments.
        """
        if frame.opcode is not Opcode.CONT:
            self._fragments, self._size = [], 0
            self._text = _Utf8Decoder() if frame.opcode is Opcode.TEXT else None
        self._size += len(frame.data)
        if self._first_size is not None and self._size > self._first_size:
            raise PayloadTooBig(self._size, self._first_size)
        if self._text is not None:
            view = memoryview(frame.data)
            for start in range(0, len(view), _PIECE):
                self._text.decode(view[start : start + _PIECE])
            self._text.decode(b"", frame.fin)
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > _MOST_FRAGMENTS:  # each costs far more memory than the byte it may hold
            raise ProtocolError(f"a message has more than {_MOST_FRAGMENTS} fragments")
        if not frame.fin:
            return None
        self._first_size = None
        parts, self._fragments = self._fragments, []
        return Message(parts[0] if len(parts) == 1 else b"".join(parts), self._text is not None)

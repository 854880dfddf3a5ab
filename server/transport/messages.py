"""From frames to whole messages."""

import codecs
from typing import Final

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode

__all__ = ["Messages"]

_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")
_MOST_FRAGMENTS: Final = 2**14


class Messages:
    """Puts the fragments of messages together."""

    def __init__(self, first_size: int) -> None:
        """Wait for the first message.

        Args:
            first_size: bytes that it may have; `websockets` itself bounds all messages alike.
        """
        self._first_size: int | None = first_size
        self._size = 0
        self._fragments: list[str | bytes] = []
        self._text: codecs.IncrementalDecoder | None = None

    @property
    def authenticated(self) -> bool:
        """Whether the first message has come."""
        return self._first_size is None

    def take(self, frame: Frame) -> str | bytes | None:
        """The message that a data frame completes.

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
        part = bytes(frame.data) if self._text is None else self._text.decode(frame.data, frame.fin)
        self._fragments.append(part)
        if len(self._fragments) > _MOST_FRAGMENTS:  # each costs far more memory than the byte it may hold
            raise ProtocolError(f"a message has more than {_MOST_FRAGMENTS} fragments")
        if not frame.fin:
            return None
        self._first_size = None
        parts, self._fragments = self._fragments, []
        if len(parts) == 1:
            return parts[0]
        empty: str | bytes = b"" if self._text is None else ""
        return empty.join(parts)  # type: ignore[arg-type]

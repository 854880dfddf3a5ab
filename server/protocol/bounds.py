"""Bounds that are checked before anything of a frame is decoded, so that no frame holds up the event loop.

A decoder walks over all bytes of a value each time that it passes it, and over a frame it passes thrice:
task by task, field by field, and into a Struct. Images are nearly all of a large frame. So the content of a
long JSON string is set aside at the speed of `memchr`, a short word stands in its place, and only who asks
for the image gets it whole. In MessagePack strings are passed in one step, but a byte may be a value, which
takes a hundred in memory: values are counted.
"""

import secrets
from typing import Final

from msgspec import Raw

from server.protocol.errors import FrameError

__all__ = ["MAX_PARAMETER", "MAX_VALUES", "SetAside", "check_values", "set_aside"]

MAX_PARAMETER: Final = 2**16
"""Bytes, as sent, of a parameter that is no image. A prompt of 3000 characters has 36,000 at most."""

MAX_VALUES: Final = 2**17
"""Values in a frame: those of ten thousand tasks."""

_MAX_REST: Final = 16 * 2**20
"""Bytes of a JSON frame beside its long strings."""

_STAND_IN: Final = f"aside-{secrets.token_hex(12)}-".encode()
"""Begins what stands for a string; nobody can guess it."""


class SetAside:
    """The long strings of a JSON frame."""

    def __init__(self, frame: bytes, spans: list[tuple[int, int]]) -> None:
        self._frame = memoryview(frame)
        self._spans = spans

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._spans)

    def holds(self, value: Raw | str) -> bool:
        """Tell whether part of a value, or of a name, was set aside."""
        if not self._spans:
            return False
        return _STAND_IN in (bytes(value) if isinstance(value, Raw) else value.encode(errors="replace"))

    def whole(self, value: Raw) -> Raw | None:
        """Give the string that a stand-in is for; None if the value is not just that."""
        head, _, number = bytes(value).strip().removesuffix(b'"').partition(_STAND_IN)
        if head != b'"' or not number.isdigit():
            return None
        start, end = self._spans[int(number)]
        return Raw(self._frame[start - 1 : end + 1])


def set_aside(frame: bytes) -> tuple[bytes, SetAside]:
    """Take the content of long strings out of a JSON frame.

    Returns:
        The frame with a stand-in for each, and what was taken out. Something long that is no string makes the
        frame malformed: no task has such.

    Raises:
        FrameError: if there are too many values, or too many bytes that are not in long strings.
    """
    frame = _without_padding(frame)
    spans = _long_gaps(frame)
    rest = frame
    if spans:
        starts = [0, *(end for _, end in spans)]
        ends = [*(start for start, _ in spans), len(frame)]
        kept = [frame[start:end] for start, end in zip(starts, ends, strict=True)]
        rest = kept[0] + b"".join(_STAND_IN + b"%d" % n + piece for n, piece in enumerate(kept[1:]))
    if rest.count(b",") >= MAX_VALUES:
        raise FrameError(f"the frame has more than {MAX_VALUES} values")
    if len(rest) > _MAX_REST:
        raise FrameError(f"the frame has more than {_MAX_REST} bytes beside its large images")
    return rest, SetAside(frame, spans)


def _without_padding(frame: bytes) -> bytes:
    """The frame without the white space around it, and with little after its last string."""
    frame = frame.strip()
    end = frame.rfind(b'"') + 1
    if len(frame) - end <= MAX_PARAMETER:
        return frame
    solid = 0
    for start in range(end, len(frame), MAX_PARAMETER):
        solid += len(frame[start : start + MAX_PARAMETER].translate(None, b" \t\r\n"))
        if solid > MAX_PARAMETER:
            raise FrameError(f"the frame has {len(frame) - end} bytes in a row that are no string")
    return frame[:end] + b" ".join(frame[end:].split())


def _long_gaps(frame: bytes) -> list[tuple[int, int]]:
    """Where there is no quotation mark for long; what is escaped at the end of a string is left to it."""
    gaps = []
    start = 0
    while start + MAX_PARAMETER < len(frame):
        # The next gap cannot begin before the last mark of a stretch that is too short for it.
        last = frame.rfind(b'"', start, start + MAX_PARAMETER)
        if last >= 0:
            start = last + 1
            continue
        end = frame.find(b'"', start + MAX_PARAMETER)
        gaps.append((start, end - 64 + len(frame[end - 64 : end].rstrip(b"\\"))))
        start = end + 1
    return gaps


def check_values(frame: bytes) -> None:
    """See that a MessagePack frame has no more values than may be; what is malformed the decoder finds.

    Raises:
        FrameError: if it has more.
    """
    if len(frame) <= MAX_VALUES:  # each takes a byte at least
        return
    at, left, passed, end = 0, 1, 0, len(frame)
    while left and at < end:
        first = frame[at]
        at += 1
        left -= 1
        passed += 1
        if first < 0x80 or first >= 0xE0:  # a small number
            continue
        size, items = _SIZES.get(first, (0, 0))
        if first < 0xA0:  # a short map or array
            left += 2 * (first & 15) if first < 0x90 else first & 15
        elif first < 0xC0:  # a short string
            at += first & 31
        elif items:  # a map or an array, with the number of its items
            left += items * int.from_bytes(frame[at : at + size])
            at += size
        elif size < 0:  # a string, bytes or an extension, with its length
            extra = 1 if first in _EXTENSIONS else 0
            at += int.from_bytes(frame[at : at - size]) - size + extra
        else:
            at += size
        if passed + left > MAX_VALUES:
            raise FrameError(f"the MessagePack frame has more than {MAX_VALUES} values")


_EXTENSIONS: Final = frozenset({0xC7, 0xC8, 0xC9})

# The formats of MessagePack's specification (github.com/msgpack/msgpack/blob/master/spec.md): bytes of the
# value or, negative, of the length that comes first; and for containers the values of an item.
_SIZES: Final[dict[int, tuple[int, int]]] = {
    **dict.fromkeys((0xC4, 0xC7, 0xD9), (-1, 0)),
    **dict.fromkeys((0xC5, 0xC8, 0xDA), (-2, 0)),
    **dict.fromkeys((0xC6, 0xC9, 0xDB), (-4, 0)),
    **dict.fromkeys((0xCC, 0xD0), (1, 0)),
    **dict.fromkeys((0xCD, 0xD1, 0xD4), (2, 0)),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), (4, 0)),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), (8, 0)),
    0xD5: (3, 0),
    0xD6: (5, 0),
    0xD7: (9, 0),
    0xD8: (17, 0),
    0xDC: (2, 1),
    0xDD: (4, 1),
    0xDE: (2, 2),
    0xDF: (4, 2),
}

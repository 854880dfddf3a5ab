"""What a client may name as an image: a UUID, a URL, a data URI, base64; in MessagePack bytes, or pixels."""

import asyncio
import binascii
import re
from typing import Final

import msgspec
from msgspec import Raw, Struct

from server.protocol.codec import Codec
from server.protocol.errors import invalid, unsupported
from server.protocol.fields import MAX_URL, is_uuid
from server.protocol.raw_image import Channels, RawImage
from server.protocol.raw_task import as_parameter_error
from server.protocol.text import refuse_control_characters

__all__ = [
    "ImageSource",
    "InlineImage",
    "RemoteImage",
    "StoredImage",
    "UnstoredImage",
    "parse_name",
    "parse_source",
    "read_source",
]


class StoredImage(Struct, frozen=True, tag=True):
    """An image that the server has: an upload, or an earlier result."""

    uuid: str


class RemoteImage(Struct, frozen=True, tag=True):
    """An image to be fetched."""

    url: str


class InlineImage(Struct, frozen=True):
    """An image that came within the task."""

    data: bytes


class UnstoredImage(Struct, frozen=True, tag=True):
    """Pixels that came within the task and are in the memory of one server; what is recorded of them.

    Attributes:
        sha256: of the pixels, in hexadecimal: the same task has the same pixels.
    """

    width: int
    height: int
    channels: Channels
    sha256: str


ImageSource = StoredImage | RemoteImage | InlineImage | RawImage

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ESCAPE: Final = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?$")

_SHORT: Final = 2 * MAX_URL
"""Bytes within which a value may be a UUID or a URL; what is longer is an image."""

_TEXT_HEADERS: Final = {0xDA: 3, 0xDB: 5}
"""Bytes before a long text in MessagePack."""

_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_PIXELS: Final = msgspec.msgpack.Decoder(RawImage)

_PIECE: Final = 2**20
"""Bytes of base64 that are decoded in one step: between two, other threads get their turn."""

_IN_PLACE: Final = frozenset({0xC4, 0xC5, 0xC6, *_MAPS})
"""How bytes and pixels begin in MessagePack, which need no decoding."""

_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")  # RFC 4648 section 5


async def read_source(raw: Raw, parameter: str, codec: Codec) -> ImageSource:
    """Read the value of an image parameter; large base64 in a thread, so that others need not wait.

    Raises:
        ParameterError: as `parse_source`.
    """
    if len(view := memoryview(raw)) > _PIECE and not (codec.binary and view[0] in _IN_PLACE):
        return await asyncio.to_thread(parse_source, raw, parameter, codec)
    return parse_source(raw, parameter, codec)


def parse_source(raw: Raw, parameter: str, codec: Codec) -> ImageSource:
    """Read the value of an image parameter.

    Base64, plain or URL-safe, may lack its padding, and be wrapped into lines.

    Raises:
        ParameterError: if it is none of the forms above, broken base64, or pixels of another size.
    """
    view = memoryview(raw)
    if len(view) > _SHORT and not codec.binary and view[0] == ord('"'):
        return InlineImage(_decode_base64(view[1:-1], parameter))
    if len(view) > _SHORT and codec.binary and view[0] in _TEXT_HEADERS:
        return InlineImage(_decode_base64(view[_TEXT_HEADERS[view[0]] :], parameter))
    try:
        value = codec.text_or_bytes(raw)
    except msgspec.DecodeError as error:
        raise invalid(parameter, f"{parameter} cannot be read: {error}", "string") from error
    if value is None:
        return _raw_image(view, parameter, codec)
    if isinstance(value, bytes):
        return InlineImage(value)
    return _from_text(value, parameter)


def parse_name(value: str, parameter: str) -> StoredImage | RemoteImage:
    """Read the UUID or the URL of an image.

    Raises:
        ParameterError: if it is neither.
    """
    named = _named(value, parameter)
    if named is None:
        raise invalid(parameter, f"{parameter}: {value[:64]!r} is neither a UUID nor a URL", "string")
    return named


def _from_text(value: str, parameter: str) -> ImageSource:
    return _named(value, parameter) or InlineImage(_decode_base64(memoryview(value.encode()), parameter))


def _named(value: str, parameter: str) -> StoredImage | RemoteImage | None:
    if is_uuid(value):
        return StoredImage(value.lower())
    if _URL.match(value):
        if len(value) > MAX_URL:
            raise invalid(parameter, f"{parameter}: the URL is longer than {MAX_URL} characters", "URL")
        refuse_control_characters(value, parameter)
        return RemoteImage(value)
    return None


def _raw_image(view: memoryview, parameter: str, codec: Codec) -> RawImage:
    """The pixels that an object holds."""
    if not codec.binary and view[0] == ord("{"):
        raise unsupported(
            parameter, f"{parameter}: pixels need MessagePack, as by the subprotocol tilewire.msgpack"
        )
    if not codec.binary or view[0] not in _MAPS:
        raise invalid(parameter, f"{parameter} must be a UUID, a URL, a data URI or base64", "string")
    try:
        image = _PIXELS.decode(view)
    except (msgspec.DecodeError, UnicodeError) as error:
        wrong = as_parameter_error(str(error))
        name = parameter if wrong.parameter in (None, "task") else f"{parameter}.{wrong.parameter}"
        raise invalid(name, f"{name}: {str(error)[:300]}") from error
    wanted = image.width * image.height * image.channels
    if len(image.pixels) != wanted:
        raise invalid(
            f"{parameter}.pixels",
            f"{parameter}.pixels has {len(image.pixels)} bytes; {image.width} × {image.height} pixels of "
            f"{image.channels} have {wanted}",
        )
    return image


def _decode_base64(text: memoryview, parameter: str) -> bytes:
    """The bytes of base64 or of a data URI; `text` may have JSON's escapes, which base64 has no use for."""
    try:
        decoded = _decode_pieces(text[_after_comma(text) :])
    except (binascii.Error, msgspec.DecodeError, UnicodeError) as error:
        raise invalid(parameter, f"{parameter} is not a UUID, a URL, a data URI or valid base64") from error
    if not decoded:
        raise invalid(parameter, f"{parameter} is empty")
    return decoded


def _after_comma(text: memoryview) -> int:
    """Where the data of a data URI begins; 0 for what is none (RFC 2397)."""
    head = bytes(text[:300])
    return head.find(b",") + 1 if head.startswith(b"data:") else 0


def _decode_pieces(text: memoryview) -> bytes:
    decoded, left = [], b""
    start = 0
    while start < len(text):
        piece = bytes(text[start : start + _PIECE])
        if (cut := _ESCAPE.search(piece, len(piece) - 6)) and start + len(piece) < len(text):
            piece = piece[: cut.start()]  # the next one begins with the whole escape
        start += len(piece)
        if not left and (plain := _decode_plain(piece)) is not None:
            decoded.append(plain)
            continue
        if b"\\" in piece:
            piece = msgspec.json.decode(b'"%b"' % piece, type=str).encode()
        left += piece.translate(_URL_SAFE, b" \t\r\n\f\v")
        whole = len(left) // 4 * 4 if start < len(text) else len(left.rstrip(b"="))
        decoded.append(_decode_strictly(left[:whole]))
        left = left[whole:]
    return b"".join(decoded)


def _decode_plain(text: bytes) -> bytes | None:
    """At several times the speed, if it is as most base64 is: padded, in one line, of the usual letters."""
    try:
        return msgspec.json.decode(b'"%b"' % text, type=bytes) if len(text) % 4 == 0 else None
    except msgspec.DecodeError:
        return None


def _decode_strictly(text: bytes) -> bytes:
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)

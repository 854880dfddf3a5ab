"""What a client may name as an image: a UUID, a URL, a data URI, base64, or bytes (MessagePack)."""

import base64
import binascii
import re
from typing import Final

import msgspec
from msgspec import Raw, Struct

from server.protocol.codec import Codec, is_uuid, refuse_control_characters
from server.protocol.errors import invalid
from server.protocol.fields import MAX_URL

__all__ = ["ImageSource", "InlineImage", "RemoteImage", "StoredImage", "parse_source"]


class StoredImage(Struct, frozen=True, tag=True):
    """An image that the server has: an upload, or an earlier result."""

    uuid: str


class RemoteImage(Struct, frozen=True, tag=True):
    """An image to be fetched."""

    url: str


class InlineImage(Struct, frozen=True):
    """An image that came within the task."""

    data: bytes


ImageSource = StoredImage | RemoteImage | InlineImage

_DATA_URI: Final = re.compile(rb'"data:[^,"]{0,256},')
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def parse_source(raw: Raw, parameter: str, codec: Codec) -> ImageSource:
    """Read the value of an image parameter.

    Base64 in JSON, the common large value, is decoded in one pass and never becomes a `str`.

    Raises:
        ParameterError: if it is none of the forms above, or broken base64.
    """
    view = memoryview(raw)
    head = bytes(view[:300])
    if not codec.binary and _is_base64(head):
        prefix = _DATA_URI.match(head)
        encoded = b"".join((b'"', view[prefix.end() :])) if prefix else view
        try:
            return InlineImage(msgspec.json.decode(encoded, type=bytes))
        except msgspec.DecodeError:
            pass  # perhaps unpadded, wrapped or URL-safe: read below
    try:
        value = codec.text_or_bytes(raw)
    except msgspec.DecodeError as error:
        raise invalid(parameter, f"{parameter} cannot be read: {error}", "string") from error
    if value is None:
        raise invalid(parameter, f"{parameter} must be a UUID, a URL, a data URI or base64", "string")
    if isinstance(value, bytes):
        return InlineImage(value)
    if is_uuid(value):
        return StoredImage(value.lower())
    if value.startswith("data:"):
        return InlineImage(_decode_base64(value.partition(",")[2], parameter))
    if _URL.match(value):
        if len(value) > MAX_URL:
            raise invalid(parameter, f"{parameter}: the URL is longer than {MAX_URL} characters", "URL")
        refuse_control_characters(value, parameter)
        return RemoteImage(value)
    return InlineImage(_decode_base64(value, parameter))


def _is_base64(head: bytes) -> bool:
    """Whether a JSON string that begins so can only be base64, plain or in a data URI."""
    if head.startswith(b'"data:'):
        return b";base64," in head
    return head.startswith(b'"') and len(head) > 64 and b":" not in head


def _decode_base64(text: str, parameter: str) -> bytes:
    compact = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        data = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(parameter, f"{parameter} is not a UUID, a URL, a data URI or valid base64") from error
    if not data:
        raise invalid(parameter, f"{parameter} is empty")
    return data

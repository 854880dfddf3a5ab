"""Pictures of all kinds, as they go over the wire."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from tilewire.events import Result, Upload
from tilewire.pictures import encode_array, encode_pillow
from tilewire.wire import is_uuid

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["Source", "wire_image"]

Source: TypeAlias = (
    "str | os.PathLike[str] | UUID | bytes | bytearray | memoryview | IO[bytes]"
    " | NDArray[Any] | Image.Image | Upload | Result"
)
"""A path, a URL, a data URI or the UUID of an image that the server has; a file's bytes, or the file, open
for reading; pixels (H, W, 3) or (H, W, 4), uint8, sRGB; a Pillow image; what the client gave before."""


async def wire_image(source: Source) -> str | bytes:
    """Give what `inputs.image` is in MessagePack: a UUID, a URL, or the bytes of a file.

    Raises:
        OSError: if a file cannot be read.
        TypeError: if it is none of what `Source` names.
        ValueError: if an array has another shape or type.
    """
    match source:
        case str():
            return await _from_text(source)
        case UUID():
            return str(source)
        case Upload() | Result():
            return source.uuid
        case bytes() | bytearray() | memoryview():
            return bytes(source)
        case os.PathLike():
            return await asyncio.to_thread(Path(source).read_bytes)
    return await asyncio.to_thread(_file_of, source)


async def _from_text(source: str) -> str | bytes:
    if source.startswith(("http://", "https://")) or is_uuid(source):
        return source
    if source.startswith("data:"):
        try:
            return base64.b64decode(source.partition(",")[2])
        except binascii.Error:
            return source  # the server says what is wrong with it
    return await asyncio.to_thread(Path(source).read_bytes)


def _file_of(source: Any) -> bytes:
    """The bytes of a file with these pixels, or of the file that this is."""
    if _is_a("numpy", "ndarray", source):
        return encode_array(source)
    if _is_a("PIL.Image", "Image", source):
        return encode_pillow(source)
    if isinstance(source, BytesIO):
        return source.getvalue()  # wherever its writer left off
    if not callable(read := getattr(source, "read", None)):
        name = type(source).__name__
        raise TypeError(f"{name} is not a path, bytes, file, array, Pillow image, URL, data URI or UUID")
    data = read()
    if not isinstance(data, bytes):
        raise TypeError("a file must be open for reading bytes: mode 'rb'")
    return data


def _is_a(module: str, name: str, value: object) -> bool:
    """Whether it is of a class of a library; if it is, that library is loaded."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)

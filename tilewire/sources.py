"""Pictures of all kinds, as they go over the wire."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard
from uuid import UUID

from tilewire.events import Result, Upload, WirePixels, wire_pixels
from tilewire.pictures import check_array, encode_array, encode_pillow
from tilewire.wire import is_uuid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["Source", "WireImage", "is_array", "wire_image"]

Source: TypeAlias = (
    "str | os.PathLike[str] | UUID | bytes | bytearray | memoryview | IO[bytes]"
    " | NDArray[Any] | Image.Image | Upload | Result"
)
"""A path, a URL, a data URI or the UUID of an image that the server has; a file's bytes, or the file, open
for reading; pixels (H, W), (H, W, 3) or (H, W, 4), uint8, sRGB; a Pillow image; a result or an upload."""

WireImage: TypeAlias = "str | bytes | WirePixels"

_LARGEST_RAW: Final = 32 * 2**20
"""Bytes of pixels that fit into a message of the server's usual limit; more are sent as a PNG file."""


async def wire_image(source: Source) -> WireImage:
    """Give what `inputs.image` is in MessagePack: a UUID, a URL, the bytes of a file, or pixels.

    Raises:
        OSError: if a file cannot be read.
        TypeError: if it is none of what `Source` names.
        ValueError: if an array has another shape or type.
    """
    match source:
        case str():
            return await _from_text(source)
        case UUID() | Upload():
            return str(source.uuid if isinstance(source, Upload) else source)
        case Result():
            return source.uuid or source.pixels or b""
        case bytes() | bytearray() | memoryview():
            return bytes(source)
        case os.PathLike():
            return await asyncio.to_thread(Path(source).read_bytes)
    return await (_from_array(source) if is_array(source) else asyncio.to_thread(_file_of, source))


async def _from_array(array: NDArray[np.uint8]) -> WireImage:
    check_array(array)
    is_small = array.nbytes <= _LARGEST_RAW
    return wire_pixels(array) if is_small else await asyncio.to_thread(encode_array, array)


def is_array(source: object) -> TypeGuard[NDArray[Any]]:
    """Tell whether a source is a numpy array."""
    return _is_a("numpy", "ndarray", source)


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

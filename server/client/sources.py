"""Pictures of all kinds, as they go over the wire."""

import asyncio
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.client.events import Result, Upload
from server.protocol.codec import is_uuid

__all__ = ["Source", "wire_image"]

Source = str | Path | bytes | NDArray[Any] | Image.Image | Upload | Result
"""A path, a URL or the UUID of an image that the server has; the bytes of a file; pixels (H, W, 3) or
(H, W, 4), uint8, sRGB; a Pillow image; what the client gave before."""

_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


async def wire_image(source: Source) -> str | bytes:
    """What `inputs.image` is in MessagePack: a UUID, a URL, or the bytes of a file.

    Raises:
        OSError: if a file cannot be read.
        TypeError: if it is none of what `Source` names.
        ValueError: if an array has another shape or type.
    """
    match source:
        case bytes():
            return source
        case Upload() | Result():
            return source.uuid
        case str() if source.startswith(("http://", "https://")) or is_uuid(source):
            return source
        case str() | Path():
            return await asyncio.to_thread(Path(source).read_bytes)
        case np.ndarray():
            return await asyncio.to_thread(_encode, _from_array(source))
        case Image.Image():
            return await asyncio.to_thread(_encode, source)
    raise TypeError(f"{type(source).__name__} is not a path, bytes, array, Pillow image, URL or UUID")


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size:
        raise ValueError(
            f"an array must be (H, W, 3) or (H, W, 4) uint8, not {pixels.shape} {pixels.dtype.name}"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _encode(image: Image.Image) -> bytes:
    """Without loss, with the colour profile and the orientation."""
    buffer = io.BytesIO()
    if image.mode in _PNG_MODES:
        image.save(buffer, "PNG", compress_level=1, exif=image.getexif())  # 1: it is sent once only
    else:
        image.save(buffer, "TIFF", exif=image.getexif())  # it has CMYK and the like
    return buffer.getvalue()

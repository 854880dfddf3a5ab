"""Pictures in files: opening, converting and writing them. Pillow and numpy are loaded on first use."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

__all__ = [
    "check_array",
    "encode_array",
    "encode_pillow",
    "has_alpha",
    "open_picture",
    "save_as",
    "write_file",
]

_PNG_MODES: Final = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
_CONVERTED: Final = {"HSV": "RGB", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "PA": "RGBA", "I;16B": "I;16"}
"""Modes that no file format holds, and what holds the same pixels."""

_QUALITY: Final = 95  # of JPEG and WebP that `save_as` converts to
_NO_ALPHA: Final = frozenset({"JPEG", "PPM", "PCX"})


def open_picture(data: bytes) -> Image.Image:
    """Give the server's picture as a Pillow image; its pixels are decoded when they are used.

    `Image.open` would warn of more than 89 megapixels and refuse 179: that limit is for files of strangers.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    for factory, accepts in (Image.OPEN[name] for name in ("JPEG", "PNG", "WEBP")):
        if accepts is not None and accepts(data[:16]) is True:
            return factory(io.BytesIO(data), "")
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ValueError("the result is not in a format that Pillow knows") from None


def encode_pillow(image: Image.Image) -> bytes:
    """Write an image without loss, with its colour profile and orientation."""
    if image.mode in _CONVERTED:
        image = image.convert(_CONVERTED[image.mode])
    buffer = io.BytesIO()
    if image.mode in _PNG_MODES:
        image.save(buffer, "PNG", compress_level=1, exif=image.getexif())  # 1: it is sent once only
    else:
        image.save(buffer, "TIFF", exif=image.getexif())  # it has CMYK and the like
    return buffer.getvalue()


def encode_array(pixels: NDArray[Any]) -> bytes:
    """Write pixels, which `check_array` takes, as a PNG file."""
    import numpy as np
    from PIL import Image

    return encode_pillow(Image.fromarray(np.ascontiguousarray(pixels)))


def check_array(pixels: NDArray[Any]) -> None:
    """See that pixels are (H, W), (H, W, 3) or (H, W, 4) uint8.

    Raises:
        ValueError: if the array has another shape or type.
    """
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype.name != "uint8" or not is_picture or not pixels.size:
        raise ValueError(
            f"an array must be (H, W), (H, W, 3) or (H, W, 4) uint8, not {pixels.shape} {pixels.dtype.name}"
        )


def has_alpha(data: bytes) -> bool:
    """Tell whether a PNG or WebP file can hold transparency, from its header; False for other files."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data[25:26] in (b"\x04", b"\x06") or _has_png_chunk(data, b"tRNS")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        # RFC 9649 section 2.7, and its section 3.4 for the lossless form, whose alpha bit is the 29th.
        if data[12:16] == b"VP8X":
            return bool(data[20] & 0x10) if len(data) > 20 else False
        return data[12:16] == b"VP8L" and len(data) > 24 and bool(data[24] & 0x10)
    return False


def save_as(image: bytes, path: Path) -> None:
    """Write a picture in the format that the name of the file asks for; as it is where that is none.

    Raises:
        ValueError: if Pillow cannot write the format.
        OSError: if the file cannot be written.
    """
    from PIL import Image

    Image.init()
    wanted = Image.registered_extensions().get(path.suffix.lower())
    given = _format(image)
    if wanted is None or wanted == given:
        write_file(path, image)
        return
    if wanted not in Image.SAVE:
        raise ValueError(f"{path.name}: Pillow cannot write {wanted}")
    picture = open_picture(image)
    if wanted in _NO_ALPHA and picture.has_transparency_data:
        _warn(f"{path.name} loses the transparency of the result: {wanted} cannot hold it")
        layer = picture.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        flat.info = picture.info
        picture = flat
    elif given == "JPEG":
        _warn(f"{path.name} is converted from a JPEG: ask for another `output_format` to lose nothing")
    buffer = io.BytesIO()
    more = {"quality": _QUALITY} if wanted in {"JPEG", "WEBP"} else {}
    kept = {name: picture.info[name] for name in ("icc_profile", "exif") if name in picture.info}
    try:
        picture.save(buffer, wanted, **kept, **more)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: Pillow cannot write this picture as {wanted}: {error}") from error
    write_file(path, buffer.getvalue())


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is seen whole or not at all; links are followed, devices and pipes written to.

    Raises:
        OSError: if it cannot be written.
    """
    target = path.resolve()
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        target.write_bytes(content)
        return
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            if mode is not None:
                partial.chmod(stat.S_IMODE(mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the name of the partial file
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _format(image: bytes) -> str | None:
    """What Pillow calls the format of one of the server's files."""
    if image.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if image.startswith(b"\x89PNG"):
        return "PNG"
    return "WEBP" if image[8:12] == b"WEBP" else open_picture(image).format


def _has_png_chunk(data: bytes, kind: bytes) -> bool:
    """Whether a chunk comes before the pixels (PNG specification, section 5.3)."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name in (kind, b"IDAT"):
            return bool(name == kind)
        at += 12 + length
    return False


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)  # where `Result.save` was called

"""Bytes to pixels: inspect and decode images that came from anyone.

Decoders are an allow-list of formats whose libraries are fuzzed continuously (OSS-Fuzz): JPEG, PNG, WebP,
GIF, BMP, TIFF, and AVIF where Pillow was built with it. Left out is what starts another program (EPS), what
has a long record of memory errors (JPEG 2000), and what nobody sends to an upscaler (PSD, DDS, icons,
camera raw). Of an animation or a file of several pages the first frame is read.

Whatever is damaged beside the pixels costs itself, never the picture; a picture of which pixels are missing
is refused. How modes, bit depths and colour profiles become colours is told in `engines.codecs.colour`.

Everything here may run in several threads at once: no setting of Pillow's is changed. Where a decoder's crash
would be one too many, `engines.codecs.decoder_pool` runs it in processes of their own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image

from engines.codecs.colour import Colours
from engines.codecs.jpeg_reader import JpegFile
from engines.codecs.metadata import orientation, upright
from engines.codecs.picture import Metadata, Picture
from engines.codecs.pillow_reader import PillowFile
from engines.codecs.png_reader import PngFile
from engines.errors import BrokenImageError, ImageError, ImageTooLargeError, NotAnImageError

__all__ = ["ImageInfo", "decode", "inspect", "read"]


ImageFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header of an image says."""

    format: ImageFormat
    width: int
    """Pixels, as displayed: after the EXIF orientation."""
    height: int
    has_alpha: bool
    """Transparency is declared; the pixels may still all be opaque."""


class _File(Protocol):
    """An opened file, whatever its format."""

    size: tuple[int, int]
    has_alpha: bool

    @property
    def exif(self) -> Image.Exif: ...

    @property
    def metadata(self) -> Metadata: ...

    def load(self) -> Colours: ...


def inspect(data: bytes, *, max_pixels: int) -> ImageInfo:
    """Reads format, displayed size and transparency from the header, without decoding a pixel.

    Raises:
        NotAnImageError: no allow-listed decoder recognises the bytes.
        UnsupportedImageError: the image is stored in a way that is not read here.
        BrokenImageError: the header is truncated or corrupt.
        ImageTooLargeError: width times height exceeds `max_pixels`.
    """
    with _opened(data, max_pixels) as (name, file):
        return _info(name, file)


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decodes the first frame, upright, in 8 bits, with its alpha, profile and metadata.

    Raises:
        NotAnImageError: no allow-listed decoder recognises the bytes.
        UnsupportedImageError: the image is stored in a way that is not read here, such as in 32-bit samples.
        BrokenImageError: pixels are missing or corrupt.
        ImageTooLargeError: width times height exceeds `max_pixels`; found before any pixel is decoded.
    """
    with _opened(data, max_pixels) as (name, file):
        return _picture(name, file)


def read(data: bytes, *, max_pixels: int, decoded_up_to: int) -> tuple[ImageInfo, Picture | None]:
    """`inspect` and, where it has at most `decoded_up_to` pixels, `decode`.

    The picture is None, too, if pixels are missing or corrupt: `decode` says which.

    Raises:
        ImageError: as `inspect`.
    """
    with _opened(data, max_pixels) as (name, file):
        info = _info(name, file)
        if info.width * info.height > decoded_up_to:
            return info, None
        try:
            return info, _picture(name, file)
        except Exception:  # noqa: BLE001 - as in `_opened`
            return info, None


def _info(name: ImageFormat, file: _File) -> ImageInfo:
    width, height = file.size
    if _orientation(name, file) >= 5:
        width, height = height, width
    return ImageInfo(name, width, height, file.has_alpha)


def _picture(name: ImageFormat, file: _File) -> Picture:
    pixels, alpha, icc_profile = file.load()
    turn = _orientation(name, file)
    return Picture(
        pixels=_turned(pixels, turn),
        alpha=None if alpha is None else _turned(alpha, turn),
        icc_profile=icc_profile,
        metadata=upright(file.exif, file.metadata),
    )


# First bytes of each format.
_MAGIC: dict[ImageFormat, re.Pattern[bytes]] = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF.{4}WEBPVP8", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
}
_FORMATS = ", ".join([*_MAGIC, *(["AVIF"] if AvifImagePlugin.SUPPORTED else [])])
_AVIF_BRANDS = {b"avif", b"avis"}


def _format_of(data: bytes) -> ImageFormat | None:
    if AvifImagePlugin.SUPPORTED and data[4:8] == b"ftyp":
        # AV1 Image File Format, 6: it is one if any of its brands says so, not only the first, major one.
        box = data[8 : min(int.from_bytes(data[:4]), 1024)]
        return "AVIF" if _AVIF_BRANDS.intersection(box[at : at + 4] for at in range(0, len(box), 4)) else None
    return next((name for name, magic in _MAGIC.items() if magic.match(data)), None)


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[tuple[ImageFormat, _File]]:
    """The format's name and the opened image; whatever hostile bytes raise inside becomes an ImageError."""
    name = _format_of(data)
    if name is None:
        raise NotAnImageError(f"Not an image in a supported format: {_FORMATS}.")
    try:
        file = _open(name, data)
        _check_size(*file.size, max_pixels)
        yield name, file
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"The {name} image is too large to decode: {error}") from error
    except MemoryError as error:
        raise BrokenImageError(f"The {name} image needs too much memory to decode.") from error
    except Exception as error:
        # Decoders raise anything on hostile bytes: OSError, SyntaxError, struct.error, ...
        raise BrokenImageError(f"The {name} image is truncated or corrupt.") from error


def _open(name: ImageFormat, data: bytes) -> _File:
    match name:
        case "JPEG":
            return JpegFile(data)
        case "PNG":
            return PngFile(data)
        case _:
            return PillowFile(name, data)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BrokenImageError(f"The image has no pixels: its size is {width} x {height}.")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"The image is {width} x {height} = {width * height:,} pixels; the limit is {max_pixels:,}."
        )


def _orientation(name: ImageFormat, file: _File) -> int:
    """How it is to be turned; Pillow turns a TIFF itself, and reports its size as displayed."""
    return 1 if name == "TIFF" else orientation(file.exif)


def _turned(plane: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3), so that row 0 is the visual top and column 0 the visual left.

    Args:
        plane: as stored.
        turn: EXIF 2.32, tag 0x0112.
    """
    if turn >= 5:
        plane = plane.swapaxes(0, 1)
    if turn in {3, 4, 7, 8}:
        plane = plane[::-1]
    if turn in {2, 3, 6, 7}:
        plane = plane[:, ::-1]
    plane = np.ascontiguousarray(plane)
    plane.flags.writeable = False
    return plane

"""Pixels to bytes: a `Picture` as JPEG, PNG or WebP.

The settings are what measurements on a photograph enlarged to 2048 x 2048 suggest (one Zen 4 core):

| format                        | time    | size    | PSNR    |
|-------------------------------|---------|---------|---------|
| WebP 75, method 0             | 77 ms   | 0.17 MB | 40.0 dB |
| WebP 75, method 2 (here)      | 123 ms  | 0.14 MB | 39.8 dB |
| WebP 75, method 4             | 335 ms  | 0.13 MB | 40.3 dB |
| JPEG 95, 4:4:4 (here)         | 22 ms   | 1.00 MB | 49.3 dB |
| JPEG 95, 4:2:0                | 13 ms   | 0.72 MB | 47.0 dB |
| JPEG 95, 4:4:4, optimised     | 61 ms   | 0.98 MB | 49.3 dB |

WebP's method 0 saves time but not bytes at customary qualities. PNG is written by `engines.codecs.png`;
at JPEG and WebP no library is much faster than Pillow (`benchmarks.codecs`), as all have the same two inside.
"""

from __future__ import annotations

import io
from enum import Enum
from typing import Any

from PIL import Image

from engines.codecs.image import Picture
from engines.codecs.png import write_png
from engines.errors import ImageTooLargeError

__all__ = ["MAX_QUALITY", "MIN_QUALITY", "OutputFormat", "encode"]

MIN_QUALITY, MAX_QUALITY = 20, 99

_CHROMA_FULL_FROM = 90
"""JPEG quality from which colour is stored at full resolution (4:4:4); below, at half (4:2:0)."""

_MAX_JPEG_SEGMENT = 65504
"""Bytes of EXIF or XMP that fit in one JPEG segment beside its name (XMP Specification part 3, 1.1.3)."""


class OutputFormat(Enum):
    """What a picture can be written as."""

    JPG = "JPG"
    PNG = "PNG"
    WEBP = "WEBP"

    @property
    def media_type(self) -> str:
        """As in Content-Type: image/jpeg, image/png or image/webp."""
        return "image/jpeg" if self is OutputFormat.JPG else f"image/{self.extension}"

    @property
    def extension(self) -> str:
        """Of a file name, without the dot: jpg, png or webp."""
        return self.value.lower()

    @property
    def max_side(self) -> int:
        """Pixels that the format can store in width and in height."""
        return _MAX_SIDES[self]


_MAX_SIDES = {
    OutputFormat.JPG: 65500,  # libjpeg's JPEG_MAX_DIMENSION; the format itself ends at 65535 (T.81 B.2.2)
    OutputFormat.PNG: 2**31 - 1,  # PNG 11.2.1
    OutputFormat.WEBP: 16383,  # RFC 9649 2.5
}


def encode(
    picture: Picture, output_format: OutputFormat, *, quality: int = 95, keep_metadata: bool = False
) -> bytes:
    """Encodes a picture, with its colour profile.

    Args:
        quality: 20 to 99; of JPG and WEBP, PNG being lossless.
        keep_metadata: also write EXIF and XMP, which may tell where and by whom a photograph was taken.
            JPG holds at most 64 KB of each; what is longer is left out.

    JPG has no transparency: the picture is laid over white.

    Raises:
        ImageTooLargeError: a side is longer than the format can store.
        ValueError: `quality` is out of range.
    """
    if not MIN_QUALITY <= quality <= MAX_QUALITY:
        raise ValueError(f"quality is {quality}, must be {MIN_QUALITY} to {MAX_QUALITY}")
    if max(picture.width, picture.height) > output_format.max_side:
        raise ImageTooLargeError(
            f"{output_format.value} stores at most {output_format.max_side} pixels a side;"
            f" the picture is {picture.width} x {picture.height}."
        )
    exif, xmp = (picture.exif, picture.xmp) if keep_metadata else (None, None)
    match output_format:
        case OutputFormat.JPG:
            blocks = {name: block for name, block in (("exif", exif), ("xmp", xmp)) if _fits_jpeg(block)}
            subsampling = "4:4:4" if quality >= _CHROMA_FULL_FROM else "4:2:0"
            return _save(_over_white(picture), "JPEG", picture, quality, subsampling=subsampling, **blocks)
        case OutputFormat.PNG:
            return write_png(picture, exif=exif, xmp=xmp)
        case OutputFormat.WEBP:
            return _save(
                _with_alpha(picture), "WEBP", picture, quality, method=2, exif=exif or b"", xmp=xmp or b""
            )


def _save(image: Image.Image, name: str, picture: Picture, quality: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, quality=quality, icc_profile=picture.icc_profile, **options)
    return buffer.getvalue()


def _with_alpha(picture: Picture) -> Image.Image:
    image = Image.fromarray(picture.pixels)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    return image


def _over_white(picture: Picture) -> Image.Image:
    image = Image.fromarray(picture.pixels)
    if picture.alpha is None:
        return image
    return Image.composite(image, Image.new("RGB", image.size, "white"), Image.fromarray(picture.alpha))


def _fits_jpeg(block: bytes | None) -> bool:
    return block is not None and len(block) <= _MAX_JPEG_SEGMENT

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
import struct
from enum import Enum
from typing import Any

from PIL import Image

from engines.codecs.metadata import photoshop_block, plausible, with_exif
from engines.codecs.picture import Metadata, Picture
from engines.codecs.png import write_png
from engines.errors import ImageTooLargeError

__all__ = ["OutputFormat", "encode"]

_MIN_QUALITY, _MAX_QUALITY = 20, 99

_CHROMA_FULL_FROM = 90
"""JPEG quality from which colour is stored at full resolution (4:4:4); below, at half (4:2:0)."""

_MAX_JPEG_SEGMENT = 65504
"""Bytes of EXIF or XMP that fit in one JPEG segment beside its name (XMP Specification part 3, 1.1.3)."""

_COM, _APP13 = 0xFE, 0xED


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
    picture: Picture,
    output_format: OutputFormat,
    *,
    quality: int = 95,
    keep_metadata: bool = False,
    keep_hidden: bool = False,
) -> bytes:
    """Encodes a picture, with its colour profile; a grey one as one channel where the format has that.

    JPG has no transparency: the picture is laid over white.

    Args:
        picture: what to encode.
        output_format: as what.
        quality: 20 to 99; of JPG and WEBP, PNG being lossless.
        keep_metadata: also write what the file said of its picture, which may tell where and by whom a
            photograph was taken: EXIF, XMP, IPTC, texts and the resolution, each where the format has a place
            for it. JPG holds at most 64 KB of each; what is longer is left out. WEBP holds EXIF and XMP, with
            the resolution and some texts in EXIF.
        keep_hidden: keep the colours of pixels that are not seen at all; WEBP otherwise makes them what
            takes least space.

    Raises:
        ImageTooLargeError: a side is longer than the format can store.
        ValueError: `quality` is out of range.
    """
    if not _MIN_QUALITY <= quality <= _MAX_QUALITY:
        raise ValueError(f"quality is {quality}, must be {_MIN_QUALITY} to {_MAX_QUALITY}")
    if max(picture.width, picture.height) > output_format.max_side:
        raise ImageTooLargeError(
            f"{output_format.value} stores at most {output_format.max_side} pixels a side;"
            f" the picture is {picture.width} x {picture.height}."
        )
    metadata = picture.metadata if keep_metadata else Metadata()
    match output_format:
        case OutputFormat.JPG:
            return _jpg(picture, metadata, quality)
        case OutputFormat.PNG:
            return write_png(picture, metadata)
        case OutputFormat.WEBP:
            exif, _ = with_exif(metadata)
            image = _with_alpha(picture)
            blocks = {"exif": exif or b"", "xmp": metadata.xmp or b""}
            return _save(image, "WEBP", picture, quality, method=2, exact=keep_hidden, **blocks)


def _jpg(picture: Picture, metadata: Metadata, quality: int) -> bytes:
    subsampling = "4:4:4" if quality >= _CHROMA_FULL_FROM else "4:2:0"
    exif, texts = with_exif(metadata)
    comments = (text.text if text.keyword == "Comment" else f"{text.keyword}: {text.text}" for text in texts)
    extra = [_segment(_COM, comment.encode("utf-8", "replace")) for comment in comments]
    if metadata.iptc is not None:
        extra.append(_segment(_APP13, b"Photoshop 3.0\0" + photoshop_block(metadata.iptc)))
    blocks = {name: block for name, block in (("exif", exif), ("xmp", metadata.xmp)) if _fits_jpeg(block)}
    return _save(
        _over_white(picture),
        "JPEG",
        picture,
        quality,
        subsampling=subsampling,
        extra=b"".join(extra),
        dpi=_jfif_density(metadata.resolution),
        **blocks,
    )


def _save(image: Image.Image, name: str, picture: Picture, quality: int, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, quality=quality, icc_profile=picture.icc_profile, **options)
    return buffer.getvalue()


def _with_alpha(picture: Picture) -> Image.Image:
    image = Image.fromarray(picture.pixels).convert("RGB")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    return image


def _over_white(picture: Picture) -> Image.Image:
    image = Image.fromarray(picture.pixels)
    if picture.alpha is None:
        return image
    return Image.composite(image, Image.new(image.mode, image.size, "white"), Image.fromarray(picture.alpha))


def _fits_jpeg(block: bytes | None) -> bool:
    return block is not None and len(block) <= _MAX_JPEG_SEGMENT


def _segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG (T.81, B.1.1.4); nothing if it would be too long for one."""
    if len(content) > _MAX_JPEG_SEGMENT:
        return b""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def _jfif_density(resolution: tuple[float, float] | None) -> tuple[int, int]:
    """In dots per inch; zeros if it is not known, or more than JFIF can say."""
    across, down = (round(dots) for dots in plausible(resolution) or (0, 0))
    return (across, down) if min(across, down) > 0 and max(across, down) < 2**16 else (0, 0)

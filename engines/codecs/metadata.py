"""What files say of their pictures, brought into one shape, and made true for the result.

Orientation is EXIF's alone: XMP repeats it, and a file where only XMP has it was turned by a program that
forgot to say so there.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from PIL import ExifTags, Image

from engines.codecs.picture import Metadata, Text

__all__ = [
    "MALFORMED",
    "iptc_records",
    "orientation",
    "photoshop_block",
    "plausible",
    "read_exif",
    "upright",
    "with_exif",
]

MALFORMED: Final = (
    *(struct.error, SyntaxError, ValueError, TypeError, LookupError, OSError, AttributeError),
    *(OverflowError, ZeroDivisionError),
)

# Tags of the first directory that tell how a file stores its pixels, which the output does in its own way.
_STORAGE_TAGS: Final = frozenset(
    {
        *range(0x00FE, 0x0108),  # kind of image, size, bits, compression, photometric interpretation
        *(0x010A, 0x0111, 0x0115, 0x0116, 0x0117, 0x0118, 0x0119, 0x011C),  # strips, samples
        *(0x013D, 0x0140, 0x0142, 0x0143, 0x0144, 0x0145, 0x014A),  # predictor, palette, tiles, sub-images
        *(0x0152, 0x0153, 0x015B, 0x0201, 0x0202, 0x0211, 0x0212, 0x0213, 0x0214),  # samples, JPEG, YCbCr
        *(0x02BC, 0x83BB, 0x8649, 0x8773),  # XMP, IPTC, Photoshop's resources, ICC profile: carried apart
    }
)
_EXIF_SIZE_TAGS: Final = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_INCH, _CENTIMETRE = 2, 3
"""EXIF 2.32, tag 0x0128; 2 where it is not given."""
_MAX_BLOCK: Final = 2**23
"""Bytes of each kind of metadata: more is no description of a picture, but something hidden in it."""
_USER_COMMENT_CODE: Final = b"UNICODE\0"  # EXIF 2.32, table 9
_TEXT_TAGS: Final = {
    "Description": ExifTags.Base.ImageDescription,
    "Author": ExifTags.Base.Artist,
    "Copyright": ExifTags.Base.Copyright,
    "Software": ExifTags.Base.Software,
}
"""PNG's keywords (11.3.3.1) that EXIF has tags for."""


def read_exif(block: bytes | None) -> Image.Exif:
    r"""An EXIF block, empty if it is missing or malformed; with or without `Exif\0\0` before it."""
    exif = Image.Exif()
    if block:
        try:
            exif.load(block)
        except MALFORMED:
            return Image.Exif()
    return exif


def orientation(exif: Image.Exif) -> int:
    """EXIF's tag 0x0112, 1 to 8; 1 is upright."""
    try:
        value = exif.get(ExifTags.Base.Orientation, 1)
    except MALFORMED:
        return 1
    return value if value in range(1, 9) else 1


def upright(exif: Image.Exif, metadata: Metadata) -> Metadata:
    """The metadata of an image that was turned as its EXIF block wanted, and changes its size.

    Args:
        exif: as it was read; it is spent.
        metadata: what else is known, `exif` being None; a resolution that it has wins over that of EXIF.
    """
    resolution = plausible(metadata.resolution) or _resolution(exif)
    texts, room = [], _MAX_BLOCK
    for text in metadata.texts:
        room -= len(text.text)
        if room >= 0:
            texts.append(text)
    return Metadata(
        exif=_bounded(_upright_exif(exif, resolution)),
        xmp=_bounded(_upright_xmp(metadata.xmp)),
        iptc=_bounded(metadata.iptc),
        texts=tuple(texts),
        resolution=resolution,
    )


def plausible(resolution: tuple[float, float] | None) -> tuple[float, float] | None:
    """The resolution, if any format could hold it."""
    if resolution is None or not all(0.01 <= dots < 1e6 for dots in resolution):  # nor are they NaN
        return None
    return resolution


def with_exif(metadata: Metadata) -> tuple[bytes | None, tuple[Text, ...]]:
    """For formats without texts: an EXIF block with the resolution, and with the texts it has a place for.

    What an image generator was asked for (`parameters`) becomes the user comment, where its programs look.

    Returns:
        The block, None if there is nothing to say, and the texts that are not in it.
    """
    exif = read_exif(metadata.exif)
    left = []
    try:
        if (resolution := plausible(metadata.resolution)) is not None:
            _set_resolution(exif, resolution)
        photo = exif.get_ifd(ExifTags.IFD.Exif)
        for text in metadata.texts:
            tag = _TEXT_TAGS.get(text.keyword)
            if tag is not None and tag not in exif and text.text.isascii():
                exif[tag] = text.text
            elif text.keyword == "parameters" and ExifTags.Base.UserComment not in photo:
                encoded = text.text.encode("utf-16-be", "replace")
                photo[ExifTags.Base.UserComment] = _USER_COMMENT_CODE + encoded
            else:
                left.append(text)
        return (exif.tobytes() if len(exif) or photo else None), tuple(left)
    except MALFORMED:
        return metadata.exif, metadata.texts


def iptc_records(block: bytes) -> bytes | None:
    """The IPTC records of Photoshop's image resources, or of a block that has nothing around them.

    Source: Adobe Photoshop File Formats Specification, Image Resource Blocks; IPTC IIM 4.2, 1.5.
    """
    if block.startswith(b"\x1c"):
        return block
    return next((data for number, data in _resources(block) if number == _IPTC), None)


def photoshop_block(iptc: bytes) -> bytes:
    """IPTC records as Photoshop's image resources."""
    return b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


_IPTC: Final = 0x0404


def _resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while block[place : place + 4] == b"8BIM" and place + 12 <= len(block):
        number = int.from_bytes(block[place + 4 : place + 6])
        name = block[place + 6]  # of a Pascal string, padded with it to an even length
        place += 6 + (name + 2) // 2 * 2
        size = int.from_bytes(block[place : place + 4])
        yield number, block[place + 4 : place + 4 + size]
        place += 4 + size + size % 2


def _resolution(exif: Image.Exif) -> tuple[float, float] | None:
    with suppress(*MALFORMED):
        per_inch = {_INCH: 1.0, _CENTIMETRE: 2.54}[exif.get(ExifTags.Base.ResolutionUnit, _INCH)]
        across = float(exif[ExifTags.Base.XResolution]) * per_inch
        down = float(exif.get(ExifTags.Base.YResolution, exif[ExifTags.Base.XResolution])) * per_inch
        return plausible((across, down))
    return None


def _bounded(block: bytes | None) -> bytes | None:
    return block if block is not None and len(block) <= _MAX_BLOCK else None


def _set_resolution(exif: Image.Exif, resolution: tuple[float, float]) -> None:
    across, down = (round(value, 2) for value in resolution)
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = across, down
    exif[ExifTags.Base.ResolutionUnit] = _INCH


def _upright_exif(exif: Image.Exif, resolution: tuple[float, float] | None) -> bytes | None:
    """Serialised; Pillow leaves the thumbnail out.

    None if nothing of interest is left or the block cannot be written.
    """
    try:
        for tag in _STORAGE_TAGS.intersection(exif):
            del exif[tag]
        exif.pop(ExifTags.Base.Orientation, None)
        if not len(exif):
            return None
        exif[ExifTags.Base.Orientation] = 1
        if resolution is not None:
            _set_resolution(exif, resolution)
        photo = exif.get_ifd(ExifTags.IFD.Exif)
        for size_tag in _EXIF_SIZE_TAGS:
            photo.pop(size_tag, None)
        return exif.tobytes()
    except MALFORMED:
        return None


def _upright_xmp(xmp: bytes | None) -> bytes | None:
    if xmp is None:
        return None
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)

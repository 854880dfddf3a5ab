"""JPEG, decoded whenever all of its picture is there, and only then.

Pillow refuses a file whose end marker is cut off, and paints grey over what is missing from one that has it.
libjpeg-turbo tells the two apart, and simplejpeg passes on what it says; it takes a fifth of Pillow's time,
too, for the same pixels. Pillow decodes what simplejpeg cannot, and all where that has no wheels.

The format is ITU-T T.81, of which the numbers here are sections: https://www.w3.org/Graphics/JPEG/itu-t81.pdf
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, JpegImagePlugin

from engines.codecs.colour import Colours, from_image, from_samples
from engines.codecs.metadata import iptc_records, read_exif
from engines.codecs.picture import Metadata, Text
from engines.errors import BrokenImageError, UnsupportedImageError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

__all__ = ["JpegFile"]

_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start of frame (table B.1): the header, by the kind of coding."""
_READABLE: Final = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
"""Baseline, extended and progressive, with Huffman or arithmetic coding."""
_SOS, _EOI, _APP, _COM = 0xDA, 0xD9, 0xE0, 0xFE
_END: Final = b"\xff\xd9"
_MARKER: Final = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")  # not a stuffed zero, restart or fill (B.1.1)
_MAX_SCANS: Final = 100
"""A progressive JPEG may repeat scans without end, each costing a pass over all pixels for a few bytes:
https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf. Encoders write ten."""
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ICC, _PHOTOSHOP, _JFIF = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"JFIF\0"
_PER_INCH: Final = {1: 1.0, 2: 2.54}
"""JFIF 1.02, units of the density: inches, centimetres."""
_SPACES: Final = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_OTHER_BITS: Final = b"\xb5\x6d\xda\xd6" * 256
_CORRUPT, _HARMLESS = "Corrupt JPEG data", "extraneous bytes"
"""How libjpeg begins warnings of lost pixels, and what it says of bytes between markers, which are none."""


class _Frame(NamedTuple):
    marker: int
    bits: int
    height: int
    width: int
    components: tuple[int, ...]
    """Their numbers."""


class JpegFile:
    """An opened JPEG."""

    has_alpha = False

    def __init__(self, data: bytes) -> None:
        """Reads all but the pixels.

        Raises:
            BrokenImageError: the header is truncated or corrupt.
            UnsupportedImageError: it is lossless or hierarchical, or has not 8 bits a channel.
        """
        self._data = data
        self._applications: defaultdict[int, list[bytes]] = defaultdict(list)
        self._comments: list[bytes] = []
        self._needed: list[bytes] = []
        self._frame = self._read_header()
        self.size = self._frame.width, self._frame.height
        if self._frame.marker not in _READABLE or self._frame.bits != 8:
            raise UnsupportedImageError(
                "The JPEG image is lossless, hierarchical, or of more than 8 bits a channel,"
                " which is not read here."
            )

    @cached_property
    def exif(self) -> Image.Exif:
        """As it was stored, empty if it is missing or malformed."""
        return read_exif(next(self._application(1, _EXIF), None))

    @cached_property
    def metadata(self) -> Metadata:
        """All but EXIF."""
        photoshop = b"".join(self._application(13, _PHOTOSHOP))
        return Metadata(
            xmp=next(self._application(1, _XMP), None),
            iptc=iptc_records(photoshop),
            texts=tuple(Text("Comment", _decoded(comment)) for comment in self._comments),
            resolution=self._resolution(),
        )

    def load(self) -> Colours:
        """The pixels.

        Raises:
            BrokenImageError: some of them are missing, or it takes too many passes to decode them.
        """
        data, icc = self._ended(), self._icc_profile()
        space = _SPACES.get(len(self._frame.components))
        pixels = None if space is None else _decode(data, space)
        if pixels is not None and space == "GRAY":
            return from_samples(pixels[..., 0], None, icc)
        if pixels is not None and space == "RGB":
            return from_samples(pixels, None, icc)
        image = _decode_slowly(data)
        if pixels is None and ImageChops.difference(image, _decode_slowly(_with_other_bits(data))).getbbox():
            raise BrokenImageError("The JPEG image is truncated or corrupt.")
        return from_image(image, icc)

    def _read_header(self) -> _Frame:
        """The frame; what lies before the first scan is kept."""
        frame, place = None, 2
        while (marker := _MARKER.search(self._data, place)) and marker[1][0] != _SOS:
            kind, start = marker[1][0], marker.end()
            end = start + int.from_bytes(self._data[start : start + 2])
            segment = self._data[start + 2 : end]
            if kind in _SOF and frame is None:
                frame = _frame(kind, segment)
            elif _APP <= kind < _APP + 16:
                self._applications[kind - _APP].append(segment)
            elif kind == _COM:
                self._comments.append(segment)
            if _is_needed(kind, segment):
                self._needed.append(self._data[marker.start() : max(start, end)])
            place = max(start, end)
        if frame is None:
            raise BrokenImageError("The JPEG image is truncated or corrupt: it has no header.")
        self._scans = 0 if marker is None else marker.start()
        return frame

    @property
    def _header(self) -> bytes:
        return b"\xff\xd8" + b"".join(self._needed)

    def _ended(self) -> bytes:
        """What decoders need of the file, with an end marker, which may be missing if nothing else is.

        Whether a scan is whole is found by decoding it; here it is seen that none is missing.
        """
        refined: dict[int, list[bool]] = {number: [False] * 64 for number in self._frame.components}
        scans, place = 0, self._scans
        while place and (marker := _MARKER.search(self._data, place)):
            start = marker.end()
            if marker[1][0] == _EOI:
                return self._header + self._data[self._scans : start]
            length = int.from_bytes(self._data[start : start + 2])
            if marker[1][0] == _SOS:
                scans += 1
                if scans > _MAX_SCANS:
                    raise BrokenImageError(f"The JPEG image has more than {_MAX_SCANS} scans.")
                _note_scan(self._data[start + 2 : start + length], refined)
            place = start + max(2, length)
        if not all(all(coefficients) for coefficients in refined.values()):
            raise BrokenImageError("The JPEG image is truncated: it ends before its last scan.")
        return self._header + self._data[self._scans :].removesuffix(b"\xff") + _END

    def _application(self, number: int, name: bytes) -> Iterator[bytes]:
        """The contents of the application segments of that name."""
        return (
            segment.removeprefix(name) for segment in self._applications[number] if segment.startswith(name)
        )

    def _icc_profile(self) -> bytes | None:
        """Of numbered segments (ICC.1:2022, B.4), whatever their order."""
        parts = {part[0]: part for part in self._application(2, _ICC) if len(part) > 2}
        count = max((part[1] for part in parts.values()), default=0)
        if not count or any(number not in parts for number in range(1, count + 1)):
            return None
        return b"".join(parts[number][2:] for number in range(1, count + 1))

    def _resolution(self) -> tuple[float, float] | None:
        jfif = next(self._application(0, _JFIF), b"")
        per_inch = _PER_INCH.get(jfif[2]) if len(jfif) >= 7 else None
        if per_inch is None:
            return None
        across, down = int.from_bytes(jfif[3:5]) * per_inch, int.from_bytes(jfif[5:7]) * per_inch
        return (across, down) if across and down else None


def _decode(data: bytes, space: str) -> NDArray[np.uint8] | None:
    """(H, W, channels); None where simplejpeg cannot, such as for channels that are sampled in a rare way.

    Raises:
        BrokenImageError: some of the pixels are missing.
    """
    for strict in (True, False) if simplejpeg is not None else ():
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                data, space, fastdct=False, fastupsample=False, strict=strict
            )
        except ValueError as error:
            if _CORRUPT in str(error) and _HARMLESS not in str(error):
                raise BrokenImageError("The JPEG image is truncated or corrupt.") from error
        else:
            return pixels
    return None


def _decode_slowly(data: bytes) -> Image.Image:
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data), "") as image:
        image.load()
        return image


def _with_other_bits(data: bytes) -> bytes:
    """The file with more bits in front of the end marker: they change the picture if it needs them.

    Where bits are missing, libjpeg goes on with zeros.
    """
    end = data.rindex(_END)
    return data[:end] + _OTHER_BITS + data[end:]


def _frame(marker: int, segment: bytes) -> _Frame | None:
    """B.2.2."""
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        return None
    components = tuple(segment[6 + 3 * index] for index in range(segment[5]))
    height, width = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])
    return _Frame(marker, segment[0], height, width, components)


def _is_needed(marker: int, segment: bytes) -> bool:
    """Whether a segment says how pixels are stored; of what applications add, only JFIF and Adobe do."""
    if marker == _APP:
        return segment.startswith(_JFIF) and len(segment) >= 14
    if marker == _APP + 14:
        return segment.startswith(b"Adobe") and len(segment) >= 12
    return marker != _COM and not _APP <= marker < _APP + 16


def _note_scan(segment: bytes, refined: dict[int, list[bool]]) -> None:
    """Mark the coefficients that a scan brings to their last bit (B.2.3, G.1.1.1)."""
    count = segment[0] if segment else 0
    if len(segment) < 4 + 2 * count:
        return
    first, last, bit = segment[1 + 2 * count], segment[2 + 2 * count], segment[3 + 2 * count] & 15
    for index in range(count):
        coefficients = refined.get(segment[1 + 2 * index])
        if coefficients is not None and bit == 0:
            coefficients[first : last + 1] = [True] * len(coefficients[first : last + 1])


def _decoded(comment: bytes) -> str:
    """Of no encoding that is written anywhere; Latin-1 can be any bytes."""
    text = comment.rstrip(b"\0")
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")

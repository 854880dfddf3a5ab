"""GIF, BMP, WebP, TIFF and AVIF, read by Pillow."""

from __future__ import annotations

import io
import re
from functools import cached_property
from typing import Any, Final

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    TiffImagePlugin,
    WebPImagePlugin,
)

from engines.codecs.colour import Colours, from_image
from engines.codecs.metadata import MALFORMED, iptc_records, read_exif
from engines.codecs.picture import Metadata, Text
from engines.errors import UnsupportedImageError

__all__ = ["PillowFile"]

_UNSUPPORTED: Final = (
    *("unsupported", "not supported", "not yet supported", "unknown pixel mode", "unknown data organization"),
    *("not available", "-2 when reading"),  # a compression that libtiff was built without
)
"""How Pillow says that it knows what it sees, but has no way to read it."""
_IPTC, _PHOTOSHOP, _SAMPLE_FORMAT = 33723, 34377, 339  # tags of TIFF
_UNSIGNED: Final = {1, 4}
"""TIFF 6.0, page 80: unsigned integers, or undefined."""
_ROUNDED: Final = {"WEBP", "AVIF"}
"""Their decoders round each channel of grey in its own way."""


class _TiffFile(TiffImagePlugin.TiffImageFile):
    """Has libtiff read separate planes, as if they were compressed: Pillow itself knows only 8 bits."""

    _planar_configuration = 1
    _stored_as = "raw"

    @property
    def _compression(self) -> str:
        is_planar = self._stored_as == "raw" and self._planar_configuration == 2
        return "planes" if is_planar else self._stored_as

    @_compression.setter
    def _compression(self, value: str) -> None:
        self._stored_as = value


_EXIF_ITEM: Final = re.compile(rb"(infe[\2\3].{3}.{4,6})Exif", re.DOTALL)
"""ISO/IEC 14496-12, 8.11.6: that an item is EXIF; its number and protection precede that."""


class _AvifFile(AvifImagePlugin.AvifImageFile):
    """Does without an EXIF block that is malformed."""

    fp: io.BytesIO

    def _open(self) -> None:
        try:
            super()._open()
        except MALFORMED:
            if not hasattr(
                self, "is_animated"
            ):  # libavif refused it, perhaps for an EXIF block without a head
                self.fp = io.BytesIO(_EXIF_ITEM.sub(rb"\1none", self.fp.getvalue()))
                super()._open()
                return
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = self._decoder.get_info()[5]
            self.info["exif"] = exif.tobytes()
            self.seek(0)


_PLUGINS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": _TiffFile,
    "AVIF": _AvifFile,
}


class PillowFile:
    """An opened file of a format that Pillow reads well as it is."""

    def __init__(self, name: str, data: bytes) -> None:
        """Reads all but the pixels.

        Args:
            name: of the format.
            data: the file.

        Raises:
            UnsupportedImageError: it is stored in a way that Pillow does not read.
            Exception: it is broken; decoders raise anything.
        """
        self._name = name
        try:
            self._image = _PLUGINS[name](io.BytesIO(data), "")
        except (SyntaxError, OSError) as error:
            raise self._explained(error) from error
        if self._image.mode in {"I", "F"} or self._has_odd_samples():
            raise UnsupportedImageError(
                f"The {name} image stores 32-bit, signed or floating-point samples, whose white level is not"
                " defined; save it with 8 or 16 bits per channel."
            )
        self._xmp = self._image.info.pop("xmp", None)  # Pillow would turn an image as XMP says
        self.size = self._image.size
        self.has_alpha = self._image.has_transparency_data

    @cached_property
    def exif(self) -> Image.Exif:
        """As it was stored, empty if it is missing or malformed; to be read after the pixels."""
        if not isinstance(self._image, _TiffFile):
            return read_exif(self._image.info.get("exif"))
        try:
            return self._image.getexif()
        except MALFORMED:
            return Image.Exif()

    @cached_property
    def metadata(self) -> Metadata:
        """All but EXIF."""
        info = self._image.info
        comment = info.get("comment")
        return Metadata(
            xmp=self._xmp if isinstance(self._xmp, bytes) else None,
            iptc=self._iptc(),
            texts=(Text("Comment", comment.decode("utf-8", "replace")),)
            if isinstance(comment, bytes)
            else (),
            resolution=_resolution(info.get("dpi")) if self._name == "BMP" else None,  # EXIF has TIFF's
        )

    def load(self) -> Colours:
        """The pixels.

        Raises:
            UnsupportedImageError: they are compressed in a way that Pillow does not read.
            Exception: they are broken; decoders raise anything.
        """
        try:
            self._image.load()
        except OSError as error:
            raise self._explained(error) from error
        icc = self._image.info.get("icc_profile")
        tolerance = 1 if self._name in _ROUNDED else 0
        return from_image(self._image, icc if isinstance(icc, bytes) else None, tolerance=tolerance)

    def _explained(self, error: Exception) -> Exception:
        """The same, or that something is not supported."""
        if any(words in str(error).lower() for words in _UNSUPPORTED):
            return UnsupportedImageError(
                f"The {self._name} image is stored in a way that is not read here ({error})."
            )
        return error

    def _has_odd_samples(self) -> bool:
        """Whether the samples of a TIFF are no unsigned integers; Pillow reads some as if they were."""
        if not isinstance(self._image, _TiffFile):
            return False
        formats: tuple[int, ...] = self._image.tag_v2.get(_SAMPLE_FORMAT, (1,))
        return any(each not in _UNSIGNED for each in formats)

    def _iptc(self) -> bytes | None:
        if not isinstance(self._image, _TiffFile):
            return None
        for tag in (_IPTC, _PHOTOSHOP):
            block: Any = self._image.tag_v2.get(tag)
            if isinstance(block, bytes) and (records := iptc_records(block)):
                return records
        return None


def _resolution(dots: object) -> tuple[float, float] | None:
    match dots:
        case (float() | int() as across, float() | int() as down) if across > 0 and down > 0:
            return float(across), float(down)
    return None

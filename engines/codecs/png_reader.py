"""PNG read as libpng reads it: a chunk that is not needed for the pixels never costs the picture.

Pillow refuses a file for a text of more than a megabyte, or for a gAMA of one byte. So the chunks are read
here, and Pillow is given only those that the pixels are made of.

The format is https://www.w3.org/TR/png-3/, of which the numbers here are sections.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from engines.codecs.colour import Colours, from_samples, has_usable_profile
from engines.codecs.metadata import iptc_records, read_exif
from engines.codecs.picture import Metadata, Text
from engines.codecs.png import SIGNATURE, chunk
from engines.codecs.png_colour import ColourChunks
from engines.errors import BrokenImageError, UnsupportedImageError

__all__ = ["PngFile"]

_DEPTHS: Final = {
    0: {1, 2, 4, 8, 16},
    2: {8, 16},
    3: {1, 2, 4, 8},
    4: {8, 16},
    6: {8, 16},
}  # table 8 (11.2.1)
_GREY, _RGB, _PALETTE = 0, 2, 3
_MAX_INFLATED: Final = 2**24
"""Bytes that one compressed chunk, and all texts together, may become: more is a bomb, or nobody's loss."""
_METRES_PER_INCH: Final = 0.0254
_EXIF_TEXTS: Final = ("Raw profile type exif", "Raw profile type APP1")
_IPTC_TEXTS: Final = ("Raw profile type iptc", "Raw profile type 8bim")
_XMP_TEXTS: Final = ("XML:com.adobe.xmp", "Raw profile type xmp")


class _Chunk(NamedTuple):
    kind: bytes
    data: memoryview
    checksum: int | None
    """None where the file ends before it."""

    @property
    def is_whole(self) -> bool:
        return self.checksum == zlib.crc32(self.data, zlib.crc32(self.kind))


class PngFile:
    """An opened PNG; of an animated one its default image."""

    def __init__(self, data: bytes) -> None:
        """Reads all but the pixels.

        Raises:
            BrokenImageError: the header is truncated or corrupt.
            UnsupportedImageError: it needs what PNG does not have.
        """
        chunks = list(_chunks(memoryview(data)))
        if not chunks or chunks[0].kind != b"IHDR" or len(chunks[0].data) != 13 or not chunks[0].is_whole:
            raise BrokenImageError("The PNG image is truncated or corrupt: it has no header.")
        self._header = bytes(chunks[0].data)
        width, height, self._bits, self._kind, *methods = struct.unpack(">IIBBBBB", self._header)
        self.size = width, height
        if self._bits not in _DEPTHS.get(self._kind, ()) or methods[:2] != [0, 0] or methods[2] > 1:
            raise BrokenImageError("The PNG image is corrupt: its header makes no sense.")
        self._pixels = [each for each in chunks if each.kind == b"IDAT"]
        self._palette: bytes | None = None
        self._others: dict[bytes, bytes] = {}
        self._texts: list[tuple[bytes, bytes]] = []
        for each in chunks[1:]:
            self._take(each)
        self._transparent = self._others.get(b"tRNS") if self._transparency_fits() else None
        self.has_alpha = self._kind in {4, 6} or self._transparent is not None

    @cached_property
    def exif(self) -> Image.Exif:
        """As it was stored, empty if it is missing or malformed."""
        if b"eXIf" in self._others:
            return read_exif(self._others[b"eXIf"])
        return read_exif(self._raw_profile(_EXIF_TEXTS))

    @cached_property
    def metadata(self) -> Metadata:
        """All but EXIF."""
        iptc = self._raw_profile(_IPTC_TEXTS)
        return Metadata(
            xmp=self._xmp(),
            iptc=iptc_records(iptc) if iptc else None,
            texts=tuple(
                text
                for text in self._all_texts
                if text.keyword not in _XMP_TEXTS and not text.keyword.startswith("Raw profile type ")
            ),
            resolution=self._resolution(),
        )

    def load(self) -> Colours:
        """The pixels.

        Raises:
            BrokenImageError: they are truncated or corrupt.
        """
        if self._kind == _PALETTE and self._palette is None:
            raise BrokenImageError("The PNG image is truncated or corrupt: it has no palette.")
        icc = self._icc_profile()
        chunks = ColourChunks.read(self._others) if not has_usable_profile(icc) else ColourChunks()
        samples, alpha = self._samples()
        curve = chunks.curve(255 if samples.dtype == np.uint8 else 65535)
        pixels = samples if curve is None else curve[samples]
        if pixels.ndim == 3:
            icc = chunks.profile() or icc
        return from_samples(pixels.astype(np.uint8, copy=False), alpha, icc)

    def _take(self, each: _Chunk) -> None:
        """Keep a chunk other than the pixels, if it is whole; the first of its kind."""
        if each.kind == b"PLTE":
            if self._kind == _PALETTE:
                if not each.is_whole or not 3 <= len(each.data) <= 768 or len(each.data) % 3:
                    raise BrokenImageError("The PNG image is truncated or corrupt: its palette is damaged.")
                self._palette = bytes(each.data)
        elif each.kind in {b"tEXt", b"zTXt", b"iTXt"}:
            if each.is_whole:
                self._texts.append((each.kind, bytes(each.data)))
        elif each.kind[:1].islower():  # ancillary (5.4)
            if each.is_whole:
                self._others.setdefault(each.kind, bytes(each.data))
        elif each.kind not in {b"IDAT", b"IEND", b"IHDR"}:
            kind = each.kind.decode("latin-1")
            raise UnsupportedImageError(f"The PNG image needs {kind}, which is not read here.")

    def _transparency_fits(self) -> bool:
        """Whether tRNS is there and has the length that it must have (11.3.1.1)."""
        length = len(self._others.get(b"tRNS", b""))
        return {_GREY: length == 2, _RGB: length == 6, _PALETTE: length > 0}.get(self._kind, False)

    def _samples(self) -> tuple[NDArray[np.uint8 | np.uint16], NDArray[np.uint8] | None]:
        """Colours, (H, W) or (H, W, 3), of 8 or 16 bits; and alpha."""
        if self._bits == 16:
            return self._16_bit_samples()
        image = self._decoded()
        stored = np.asarray(image if image.mode != "1" else image.convert("L"))
        if self._kind == _PALETTE:
            return self._palette_colours()[stored], self._palette_alpha(stored)
        if image.mode in {"LA", "RGBA"}:
            colours = stored[..., 0] if image.mode == "LA" else stored[..., :3]
            return np.ascontiguousarray(colours), np.ascontiguousarray(stored[..., -1])
        return stored, self._keyed(stored, 255 // (2**self._bits - 1))

    def _16_bit_samples(self) -> tuple[NDArray[np.uint16], NDArray[np.uint8] | None]:
        """Pillow gives the high bytes of colours; of samples named little-endian it gives the low ones."""
        if self._kind == _GREY:
            grey = np.asarray(self._decoded()).astype(np.uint16)
            return grey, self._keyed(grey, 1)
        if self._kind == 4:
            four = np.asarray(self._decoded("RGBA"))  # two bytes of grey, two of alpha
            return _joined(four[..., 0], four[..., 1]), _rounded(_joined(four[..., 2], four[..., 3]))
        mode = "RGB" if self._kind == _RGB else "RGBA"
        samples = _joined(*(np.asarray(self._decoded(f"{mode};16{end}")) for end in "BL"))
        if self._kind == _RGB:
            return samples, self._keyed(samples, 1)
        return np.ascontiguousarray(samples[..., :3]), _rounded(samples[..., 3])

    def _keyed(self, samples: NDArray[np.uint8 | np.uint16], spread: int) -> NDArray[np.uint8] | None:
        """Alpha of the colour that is transparent.

        Args:
            samples: what Pillow made of those that are stored, ...
            spread: ... by multiplying them with this.
        """
        if self._transparent is None:
            return None
        key = np.frombuffer(self._transparent, ">u2").astype(np.uint16) & (2**self._bits - 1)
        hidden = samples == key * spread
        if samples.ndim == 3:
            hidden = hidden.all(axis=2)
        return np.where(hidden, np.uint8(0), np.uint8(255))

    def _palette_colours(self) -> NDArray[np.uint8]:
        """256 of them: an index beyond the palette is an error that libpng, too, shows as black."""
        assert self._palette is not None
        return np.frombuffer(self._palette.ljust(768, b"\0"), np.uint8).reshape(256, 3)

    def _palette_alpha(self, indices: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        if self._transparent is None:
            return None
        return np.frombuffer(self._transparent[:256].ljust(256, b"\xff"), np.uint8)[indices]

    def _decoded(self, raw_mode: str | None = None) -> Image.Image:
        """The stored samples in one of Pillow's modes, or read as if they were of another."""
        if any(each.checksum is not None and not each.is_whole for each in self._pixels):
            raise BrokenImageError("The PNG image is truncated or corrupt: its checksum is wrong.")
        chunks = [SIGNATURE, chunk(b"IHDR", self._header)]
        if self._palette is not None:
            chunks.append(chunk(b"PLTE", self._palette))
        chunks.append(chunk(b"IDAT", b"".join(each.data for each in self._pixels)))
        with PngImagePlugin.PngImageFile(io.BytesIO(b"".join([*chunks, chunk(b"IEND", b"")])), "") as image:
            if raw_mode is not None:
                image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
            image.load()
            return image

    def _icc_profile(self) -> bytes | None:
        """The profile of iCCP (11.3.2.3)."""
        name, _, rest = self._others.get(b"iCCP", b"").partition(b"\0")
        return _inflated(rest[1:]) if name and rest[:1] == b"\0" else None

    def _resolution(self) -> tuple[float, float] | None:
        """That of pHYs (11.3.4.3), where it is in pixels per metre."""
        data = self._others.get(b"pHYs", b"")
        if len(data) != 9 or data[8] != 1:
            return None
        across, down = (count * _METRES_PER_INCH for count in struct.unpack(">II", data[:8]))
        return (across, down) if across and down else None

    @cached_property
    def _all_texts(self) -> list[Text]:
        texts, room = [], _MAX_INFLATED
        for kind, data in self._texts:
            text = _text(kind, data)
            if text is not None and len(text.text) <= room:
                room -= len(text.text)
                texts.append(text)
        return texts

    def _xmp(self) -> bytes | None:
        for text in self._all_texts:
            if text.keyword == "XML:com.adobe.xmp":
                return text.text.encode()
        return self._raw_profile(_XMP_TEXTS)

    def _raw_profile(self, keywords: tuple[str, ...]) -> bytes | None:
        """ImageMagick's way: a line break, a name, a length, and hexadecimal digits."""
        for text in self._all_texts:
            if text.keyword in keywords:
                match = re.fullmatch(r"\s*[^\n]+\n\s*\d+\n([0-9a-fA-F\s]*)", text.text)
                with suppress(ValueError):
                    if match:
                        return bytes.fromhex(match[1])
        return None


def _chunks(data: memoryview) -> Iterator[_Chunk]:
    """All chunks up to the end, or to where there is no sense in them; the last may be cut."""
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4]), bytes(data[place + 4 : place + 8])
        if not kind.isalpha():
            return
        start, end = place + 8, place + 8 + length
        checksum = int.from_bytes(data[end : end + 4]) if end + 4 <= len(data) else None
        yield _Chunk(kind, data[start:end], checksum)
        if kind == b"IEND":
            return
        place = end + 4


def _text(kind: bytes, data: bytes) -> Text | None:
    """tEXt, zTXt and iTXt (11.3.3)."""
    keyword, zero, rest = data.partition(b"\0")
    if not keyword or not zero:
        return None
    encoding: str = "latin-1"
    content: bytes | None = rest
    if kind == b"zTXt":
        content = _inflated(rest[1:]) if rest[:1] == b"\0" else None
    elif kind == b"iTXt":
        is_compressed, method, fields = rest[:1], rest[1:2], rest[2:].split(b"\0", 2)
        if len(fields) != 3 or (is_compressed == b"\1" and method != b"\0"):
            return None
        encoding, content = "utf-8", fields[2]
        if is_compressed == b"\1":
            content = _inflated(fields[2])
    if content is None:
        return None
    return Text(keyword.decode("latin-1"), content.decode(encoding, "replace"))


def _inflated(data: bytes) -> bytes | None:
    """What was compressed; None if it is damaged or becomes too long."""
    decompressor = zlib.decompressobj()
    try:
        inflated = decompressor.decompress(data, _MAX_INFLATED)
    except zlib.error:
        return None
    return inflated if decompressor.eof else None


def _joined(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    samples = high.astype(np.uint16)
    samples *= 256
    samples += low
    return samples


def _rounded(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)

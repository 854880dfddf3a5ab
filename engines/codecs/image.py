"""Bytes to pixels: inspect, decode and resize images that came from anyone.

Decoders are an allow-list of formats whose libraries are fuzzed continuously (OSS-Fuzz): JPEG, PNG, WebP,
GIF, BMP, TIFF, and AVIF where Pillow was built with it. Left out is what starts another program (EPS), what
has a long record of memory errors (JPEG 2000), and what nobody sends to an upscaler (PSD, DDS, icons,
camera raw). Of an animation or a file of several pages the first frame is read.

How modes, bit depths and colour profiles become RGB is told in `engines.codecs.colour`.

Everything here may run in several threads at once: no setting of Pillow's is changed. Where a decoder's crash
would be one too many, `engines.codecs.decoder_pool` runs it in processes of their own.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from engines.codecs.colour import to_rgb
from engines.errors import BrokenImageError, ImageError, ImageTooLargeError, NotAnImageError

__all__ = ["ImageInfo", "Picture", "decode", "inspect", "resize", "resize_rows"]


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


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright 8-bit RGB picture with what must travel beside its pixels."""

    pixels: npt.NDArray[np.uint8]
    """(H, W, 3), C-contiguous, in `icc_profile` or, without one, sRGB; read-only from `decode`."""
    alpha: npt.NDArray[np.uint8] | None = None
    """(H, W), not premultiplied, 255 is opaque; None when every pixel is opaque."""
    icc_profile: bytes | None = None
    """An RGB ICC profile."""
    exif: bytes | None = None
    """An EXIF block (`Exif\\0\\0`, then TIFF) with orientation 1 and nothing that depends on the size."""
    xmp: bytes | None = None
    """An XMP packet with orientation 1."""

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def inspect(data: bytes, *, max_pixels: int) -> ImageInfo:
    """Reads format, displayed size and transparency from the header, without decoding a pixel.

    Of a PNG that has its EXIF block behind the pixels, as is rare, it gives the size before orientation.

    Raises:
        NotAnImageError: no allow-listed decoder recognises the bytes.
        BrokenImageError: the header is truncated or corrupt.
        ImageTooLargeError: width times height exceeds `max_pixels`.
    """
    with _opened(data, max_pixels) as (name, image):
        width, height = image.size
        # Pillow already reports a TIFF's size as displayed, and turns its pixels on loading.
        if name != "TIFF" and _read_exif(image).get(ExifTags.Base.Orientation) in {5, 6, 7, 8}:
            width, height = height, width
        return ImageInfo(name, width, height, image.has_transparency_data)


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decodes the first frame, upright, as 8-bit RGB with its alpha, profile and metadata.

    A broken colour profile or EXIF block is dropped; broken pixel data is an error.

    Raises:
        NotAnImageError: no allow-listed decoder recognises the bytes, or they hold 32-bit samples.
        BrokenImageError: truncated or corrupt.
        ImageTooLargeError: width times height exceeds `max_pixels`; found before any pixel is decoded.
    """
    with _opened(data, max_pixels) as (name, image):
        if name == "JPEG":
            _check_scans(data)
        if name == "PNG":
            _narrow_colour_key(image)
        image.load()
        exif = _read_exif(image)
        turn = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
        rgb, alpha, icc_profile = to_rgb(image)
        if turn is not None:
            rgb = rgb.transpose(turn)
            alpha = alpha.transpose(turn) if alpha is not None else None
        return Picture(
            pixels=np.asarray(rgb),
            alpha=None if alpha is None else np.asarray(alpha),
            icc_profile=icc_profile,
            exif=_upright_exif(exif),
            xmp=_upright_xmp(image.info.get("xmp")),
        )


def resize(pixels: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Resamples to `height` x `width` with Lanczos (three lobes), antialiased; the columns first.

    Each of the two passes rounds and clips, so their order shows at hard edges, where Lanczos overshoots.
    Pillow chooses it by the shape, which would let results depend on how they are cut into tiles.

    Args:
        pixels: (H, W, 3) or (H, W) uint8.
        width: in pixels.
        height: in pixels.

    Returns:
        The result, read-only; values are clipped to 0..255.
    """
    return resize_rows(resize_columns(pixels, width), height, 0, len(pixels))


def resize_columns(pixels: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """The first pass of `resize`: (H, W, 3) or (H, W) to `width` columns, each row by itself."""
    return np.asarray(Image.fromarray(pixels).resize((width, len(pixels)), Image.Resampling.LANCZOS))


def resize_rows(
    pixels: npt.NDArray[np.uint8], height: int, top: float, bottom: float
) -> npt.NDArray[np.uint8]:
    """The second pass of `resize`: the rows from `top` to `bottom`; those beyond them are still looked at."""
    width = pixels.shape[1]
    box = (0, top, width, bottom)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box))


# First bytes of each format, and Pillow's decoder for it. Pillow's own `open` is not used: it compares the
# size with a limit of its own, and only after the decoder was set up, as a process-wide warning.
_DECODERS: dict[ImageFormat, tuple[re.Pattern[bytes], type[ImageFile.ImageFile]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    "WEBP": (re.compile(rb"RIFF.{4}WEBPVP8", re.DOTALL), WebPImagePlugin.WebPImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
}
if AvifImagePlugin.SUPPORTED:
    _DECODERS["AVIF"] = (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), AvifImagePlugin.AvifImageFile)


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[tuple[ImageFormat, ImageFile.ImageFile]]:
    """The opened image and its format's name; whatever hostile bytes raise inside becomes an ImageError."""
    name = next((name for name, (magic, _) in _DECODERS.items() if magic.match(data)), None)
    if name is None:
        raise NotAnImageError(f"Not an image in a format that is read here: {', '.join(_DECODERS)}.")
    try:
        with _DECODERS[name][1](io.BytesIO(data), "") as image:
            _check_size(image.width, image.height, max_pixels)
            yield name, image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"The {name} image is too large to decode: {error}") from error
    except MemoryError as error:
        raise BrokenImageError(f"The {name} image needs too much memory to decode.") from error
    except Exception as error:
        # Decoders raise anything on hostile bytes: OSError, SyntaxError, struct.error, ...
        raise BrokenImageError(f"The {name} image is truncated or corrupt.") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BrokenImageError(f"The image has no pixels: its size is {width} x {height}.")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"The image is {width} x {height} = {width * height:,} pixels; the limit is {max_pixels:,}."
        )


# A progressive JPEG may repeat scans without end, each costing a pass over all pixels for a few bytes of
# file: https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf. Encoders write ten.
_MAX_JPEG_SCANS = 100
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")  # not a stuffed zero, restart or fill (T.81 B.1.1)


def _check_scans(data: bytes) -> None:
    scans, position = 0, 2
    while (marker := _JPEG_MARKER.search(data, position)) and marker[1] != b"\xd9":
        scans += marker[1] == b"\xda"
        if scans > _MAX_JPEG_SCANS:
            raise BrokenImageError(f"The JPEG image has more than {_MAX_JPEG_SCANS} scans.")
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])


def _narrow_colour_key(image: ImageFile.ImageFile) -> None:
    """Pillow reads 16-bit RGB by its high bytes, but leaves the transparent colour (PNG tRNS) at 16 bits."""
    key = image.info.get("transparency")
    if isinstance(key, tuple) and image.tile and image.tile[0].args == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


# EXIF 2.32, tag 0x0112: what to do so that row 0 is the visual top and column 0 the visual left.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Tags of the first directory that tell how a file stores its pixels, which the output does in its own way.
_STORAGE_TAGS = frozenset(
    {
        *range(0x00FE, 0x0108),  # kind of image, size, bits, compression, photometric interpretation
        *(0x010A, 0x0111, 0x0115, 0x0116, 0x0117, 0x0118, 0x0119, 0x011C),  # strips, samples
        *(0x013D, 0x0140, 0x0142, 0x0143, 0x0144, 0x0145, 0x014A),  # predictor, palette, tiles, sub-images
        *(0x0152, 0x0153, 0x015B, 0x0201, 0x0202, 0x0211, 0x0212, 0x0213, 0x0214),  # samples, JPEG, YCbCr
        *(0x02BC, 0x8649, 0x8773),  # XMP, Photoshop's resources, ICC profile: carried apart, or not
    }
)
_EXIF_SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_MALFORMED = (struct.error, SyntaxError, ValueError, TypeError, LookupError, OSError, AttributeError)


def _read_exif(image: ImageFile.ImageFile) -> Image.Exif:
    """The EXIF block, empty if it is missing or malformed."""
    try:
        # Not image.getexif(): PNG's would decode all pixels to look for a block behind them.
        return Image.Image.getexif(image)
    except _MALFORMED:
        return Image.Exif()


def _upright_exif(exif: Image.Exif) -> bytes | None:
    """Serialised for an image that is upright and of another size; Pillow leaves the thumbnail out.

    None if nothing of interest is left or the block cannot be written.
    """
    try:
        for tag in _STORAGE_TAGS.intersection(exif):
            del exif[tag]
        exif.pop(ExifTags.Base.Orientation, None)
        if not len(exif):
            return None
        exif[ExifTags.Base.Orientation] = 1
        photo = exif.get_ifd(ExifTags.IFD.Exif)
        for size_tag in _EXIF_SIZE_TAGS:
            photo.pop(size_tag, None)
        return exif.tobytes()
    except _MALFORMED:
        return None


def _upright_xmp(xmp: object) -> bytes | None:
    if not isinstance(xmp, bytes):
        return None
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)

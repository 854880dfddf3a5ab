"""Any Pillow mode, and any profile, to 8-bit colour and alpha; pure functions on what is already decoded.

| stored as                          | becomes                                                            |
|------------------------------------|--------------------------------------------------------------------|
| RGB, RGBA, palette                 | the same values; an embedded RGB profile stays with them           |
| 16 bits a channel RGB(A), CMYK     | rounded to 8 bits (PNG), the high bytes (TIFF); then as that kind  |
| grey, 1-bit                        | grey; through a grey or RGB profile, to the curve of sRGB          |
| 16-bit grey, 12-bit grey (TIFF)    | rounded to 8 bits by its own white level; then as 8-bit grey       |
| colour with R = G = B everywhere   | grey; by one level they may differ in WebP and AVIF                |
| CMYK                               | through its profile to sRGB; without one, Pillow's plain formula   |
| CIE Lab (TIFF)                     | to sRGB                                                            |
| YCbCr                              | RGB; an RGB profile stays                                          |
| 32-bit, signed or float (TIFF)     | refused: what is white is nowhere written                          |
| transparent index, palette alpha, colour key (PNG tRNS, GIF) | an alpha plane                           |

An RGB profile is kept, also plain sRGB, rather than applied: nothing is lost, and wide gamut reaches the
output. Conversions to sRGB are LittleCMS, relative colorimetric with black point compensation. A profile
that LittleCMS cannot use, or that is of another colour space than the pixels, is ignored. PNG's gAMA and cHRM
are the matter of `engines.codecs.png_colour`; AVIF's CICP, which Pillow does not apply, is ignored.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

__all__ = ["Colours", "from_image", "from_samples", "has_usable_profile"]

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_MAX_PROFILE = 255 * 65519
"""Bytes that a JPEG can hold, in as many segments as may be numbered (ICC.1:2022, B.4)."""


class Colours(NamedTuple):
    """What every image becomes before it is upscaled."""

    pixels: NDArray[np.uint8]
    """(H, W, 3), or (H, W) of a grey one."""
    alpha: NDArray[np.uint8] | None
    """(H, W), 255 is opaque; None when every pixel is opaque."""
    icc_profile: bytes | None
    """The RGB profile that the values of `pixels` are in; None means sRGB."""


def from_image(image: Image.Image, icc: bytes | None, *, tolerance: int = 0) -> Colours:
    """Converts a loaded image as the table above says.

    Args:
        image: of any mode but I and F.
        icc: its profile.
        tolerance: see `from_samples`.
    """
    colour, alpha = _split_alpha(image)
    plane = None if alpha is None else np.asarray(alpha)
    if colour.mode in {"L", "RGB"}:
        return from_samples(np.asarray(colour), plane, icc, tolerance=tolerance)
    converted, icc = _to_rgb(colour, icc)
    return from_samples(np.asarray(converted), plane, icc)


def from_samples(
    pixels: NDArray[np.uint8],
    alpha: NDArray[np.uint8] | None,
    icc: bytes | None,
    *,
    tolerance: int = 0,
) -> Colours:
    """The colours of 8-bit samples, with a profile of grey or RGB.

    Args:
        pixels: grey, (H, W), or RGB, (H, W, 3).
        alpha: (H, W), if there is any.
        icc: the profile; ignored if it is of another kind, or cannot be used.
        tolerance: by how many levels the channels may differ of what is grey.
    """
    if alpha is not None and alpha.min() == 255:
        alpha = None
    profile = _Profile.read(icc)
    if profile is not None and profile.space == "GRAY" and pixels.ndim == 2:
        curve = profile.grey_curve("L")
        return Colours(pixels if curve is None else curve[pixels], alpha, None)
    if profile is None or profile.space != "RGB" or not profile.is_usable:
        return Colours(_as_grey(pixels, tolerance), alpha, None)
    grey = _as_grey(pixels, tolerance)
    if grey.ndim == 2:
        curve = profile.grey_curve("RGB")
        if curve is not None:
            return Colours(curve[grey], alpha, None)
        pixels = np.repeat(grey[:, :, np.newaxis], 3, axis=2)  # a profile of a device that tints its greys
    if profile.size > _MAX_PROFILE:
        converted = _applied(Image.fromarray(pixels), profile.transform("RGB"))
        return Colours(np.asarray(converted), alpha, None)
    return Colours(pixels, alpha, profile.data)


def has_usable_profile(icc: bytes | None) -> bool:
    """Whether an ICC profile, of grey or RGB, says what colours mean."""
    profile = _Profile.read(icc)
    return profile is not None and profile.space in {"GRAY", "RGB"} and profile.is_usable


class _Profile:
    """An ICC profile of a file."""

    def __init__(self, data: bytes) -> None:
        """Raises OSError if it is none."""
        # ICC.1:2022, 7.2: its size, and its colour space. Some writers leave room behind it.
        self.data = data[: int.from_bytes(data[:4])] if int.from_bytes(data[:4]) >= 128 else data
        self.size = len(self.data)
        self.space = self.data[16:20].decode("latin-1").strip()
        self._profile = ImageCms.ImageCmsProfile(io.BytesIO(self.data))

    @classmethod
    def read(cls, data: bytes | None) -> _Profile | None:
        """None if there is none, or it cannot be read."""
        try:
            return cls(data) if data else None
        except (ImageCms.PyCMSError, OSError):
            return None

    @property
    def is_usable(self) -> bool:
        """Whether LittleCMS can apply it; a profile that no reader could use is not worth keeping."""
        try:
            self.transform("L" if self.space == "GRAY" else self.space)
        except (ImageCms.PyCMSError, ValueError):
            return False
        return True

    def grey_curve(self, mode: str) -> NDArray[np.uint8] | None:
        """What each level of grey is in sRGB; None if it cannot be said, or is no grey there.

        Exact: LittleCMS's fast path is off by 10 levels in the shadows of a linear profile.
        """
        ramp = Image.frombytes("L", (256, 1), bytes(range(256))).convert(mode)
        try:
            levels = np.asarray(_applied(ramp, self.transform(mode, ImageCms.Flags.NOOPTIMIZE)))[0]
        except (ImageCms.PyCMSError, ValueError):
            return None
        if np.ptp(levels.astype(np.int16), axis=1).max() > 2:  # levels; matrices are rounded
            return None
        return np.ascontiguousarray(levels[:, 1])

    def transform(self, mode: str, flags: ImageCms.Flags = ImageCms.Flags.NONE) -> ImageCms.ImageCmsTransform:
        """From images of a mode of its colour space to sRGB; raises PyCMSError or ValueError."""
        return _transform(self._profile, mode, flags)


def to_srgb(pixels: NDArray[np.uint8], icc_profile: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) in a profile as sRGB; as they are if the profile is broken, as elsewhere."""
    profile = _Profile.read(icc_profile)
    if profile is None or profile.space != "RGB" or not profile.is_usable:
        return pixels
    return np.asarray(_applied(Image.fromarray(pixels), profile.transform("RGB")))


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colour, in mode L, RGB, CMYK, LAB or YCbCr; and the alpha plane, in mode L, if there is one."""
    if image.mode.startswith("I;16"):
        return _from_16_bit_grey(image), None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in {"1", "L", "LA"} else "RGBA")
        alpha = image.getchannel("A")
        return image.convert("L" if image.mode == "LA" else "RGB"), alpha
    if image.mode in {"L", "RGB", "CMYK", "LAB", "YCbCr"}:
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _from_16_bit_grey(image: Image.Image) -> Image.Image:
    """Pillow's own conversion clips at 255, so the scaling is done here."""
    values = np.asarray(image).astype(np.uint32)
    white, inverted = 65535, False
    if isinstance(image, TiffImageFile):
        white = (1 << image.tag_v2.get(BITSPERSAMPLE, (16,))[0]) - 1
        inverted = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0  # WhiteIsZero, TIFF 6.0 page 37
    grey = ((values * 255 + white // 2) // white).astype(np.uint8)
    return Image.fromarray(255 - grey if inverted else grey)


def _as_grey(pixels: NDArray[np.uint8], tolerance: int) -> NDArray[np.uint8]:
    """One channel if the three are the same."""
    if pixels.ndim == 2:
        return pixels
    for some in (pixels[:: max(1, len(pixels) // 16)], pixels):  # most pictures in colour are known by a few
        red, green, blue = (some[..., channel] for channel in range(3))
        for other in (red, blue):
            if (np.maximum(other, green) - np.minimum(other, green) > tolerance).any():
                return pixels
    return np.ascontiguousarray(pixels[..., 1])


def _to_rgb(colour: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """CMYK, Lab or YCbCr as RGB, and the profile that it is in if it is not sRGB by default."""
    if colour.mode == "LAB":
        return _applied(
            colour, _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")
        ), None
    if colour.mode != "CMYK":
        return colour.convert("RGB"), icc
    profile = _Profile.read(icc)
    if profile is not None and profile.space == "CMYK" and profile.is_usable:
        return _applied(colour, profile.transform("CMYK")), None
    return colour.convert("RGB"), None


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None only when it works in place
    return converted


def _transform(
    profile: ImageCms.ImageCmsProfile,
    mode: str,
    flags: ImageCms.Flags = ImageCms.Flags.NONE,
) -> ImageCms.ImageCmsTransform:
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(profile, srgb, mode, "RGB", _INTENT, _FLAGS | flags)

"""Any Pillow mode to 8-bit RGB and alpha; pure functions on images that are already decoded.

| stored as                          | becomes                                                            |
|------------------------------------|--------------------------------------------------------------------|
| RGB, RGBA, palette                 | the same values; an embedded RGB profile stays with them           |
| 16 bits a channel RGB(A), grey+alpha | the high bytes, as Pillow reads them; then as the 8-bit kind     |
| grey, 1-bit                        | R = G = B, an RGB profile stays; through a grey profile, to sRGB   |
| 16-bit grey, 12-bit grey (TIFF)    | rounded to 8 bits by its own white level; then as 8-bit grey       |
| CMYK                               | through its profile to sRGB; without one, Pillow's plain formula   |
| CIE Lab (TIFF)                     | to sRGB                                                            |
| YCbCr                              | RGB; an RGB profile stays                                          |
| 32-bit integer or float (TIFF)     | refused: what is white is nowhere written                          |
| transparent index, palette alpha, colour key (PNG tRNS, GIF) | an alpha plane                           |

An RGB profile is kept, also plain sRGB, rather than applied: nothing is lost, and wide gamut reaches the
output. Conversions to sRGB are LittleCMS, relative colorimetric with black point compensation. A profile
that LittleCMS cannot use, or that is of another colour space than the pixels, is ignored. So are PNG's
gAMA and cHRM and AVIF's CICP, which Pillow does not apply.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from engines.errors import NotAnImageError

__all__ = ["RgbImage", "to_rgb"]

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


class RgbImage(NamedTuple):
    """What every image becomes before it is upscaled."""

    rgb: Image.Image
    """Mode RGB."""
    alpha: Image.Image | None
    """Mode L, 255 is opaque; None when every pixel is opaque."""
    icc_profile: bytes | None
    """The RGB profile that the values of `rgb` are in; None means sRGB."""


def to_rgb(image: Image.Image) -> RgbImage:
    """Converts a loaded image as the table above says.

    Raises:
        NotAnImageError: its samples are 32-bit integers or floats.
    """
    colour, alpha = _split_alpha(image)
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    rgb, icc_profile = _apply_profile(colour, image.info.get("icc_profile"))
    return RgbImage(rgb, alpha, icc_profile)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colour, in mode L, RGB, CMYK, LAB or YCbCr; and the alpha plane, in mode L, if there is one."""
    if image.mode in {"I", "F"}:
        raise NotAnImageError(
            "The image stores 32-bit or signed samples, whose white level is not defined;"
            " save it with 8 or 16 bits per channel."
        )
    if image.mode.startswith("I;16"):
        return _from_16_bit_grey(image)
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in {"1", "L", "LA"} else "RGBA")
        alpha = image.getchannel("A")
        return image.convert("L" if image.mode == "LA" else "RGB"), alpha
    if image.mode in {"L", "RGB", "CMYK", "LAB", "YCbCr"}:
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _from_16_bit_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Pillow's own conversion clips at 255, so the scaling is done here."""
    values = np.asarray(image).astype(np.uint32)
    white, inverted = 65535, False
    if isinstance(image, TiffImageFile):
        white = (1 << image.tag_v2.get(BITSPERSAMPLE, (16,))[0]) - 1
        inverted = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0  # WhiteIsZero, TIFF 6.0 page 37
    grey = ((values * 255 + white // 2) // white).astype(np.uint8)
    key = image.info.get("transparency")
    alpha = None if key is None else Image.fromarray(np.where(values == key, np.uint8(0), np.uint8(255)))
    return Image.fromarray(255 - grey if inverted else grey), alpha


def _apply_profile(colour: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """RGB pixels, and the profile they are in if it is not sRGB by default."""
    if colour.mode == "LAB":
        return _to_srgb(colour, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))), None
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            space = profile.profile.xcolor_space.strip()
            if (space, colour.mode) == ("GRAY", "L"):
                return _grey_to_srgb(colour, profile), None
            if (space, colour.mode) == ("CMYK", "CMYK"):
                return _to_srgb(colour, profile), None
            if space == "RGB" and colour.mode != "CMYK":
                _transform(profile, "RGB")  # a profile that no reader could use is not worth keeping
                return colour.convert("RGB"), icc
        except (ImageCms.PyCMSError, OSError):
            return colour.convert("RGB"), None
    return colour.convert("RGB"), None


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    return _applied(image, _transform(profile, image.mode))


def _grey_to_srgb(grey: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """Exact, by look-up: LittleCMS's fast path is off by 10 levels in the shadows of a linear profile."""
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    indexed = grey.copy()
    indexed.putpalette(_applied(ramp, _transform(profile, "L", ImageCms.Flags.NOOPTIMIZE)).tobytes())
    return indexed.convert("RGB")


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None only when it works in place
    return converted


def _transform(
    profile: ImageCms.ImageCmsProfile, mode: str, flags: ImageCms.Flags = ImageCms.Flags.NONE
) -> ImageCms.ImageCmsTransform:
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(profile, srgb, mode, "RGB", _INTENT, _FLAGS | flags)

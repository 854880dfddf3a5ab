"""Pixels without a file around them: to pictures and back."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.codecs.colour import to_srgb
from engines.codecs.picture import Picture, as_grey, as_rgb

__all__ = ["Channels", "picture_of", "pixels_of"]

Channels = Literal[1, 3, 4]
"""Grey, RGB, or RGB with alpha that is not premultiplied; 8 bits each, sRGB."""

_OPAQUE = 255


def picture_of(pixels: memoryview, width: int, height: int, channels: Channels) -> Picture:
    """The picture that has these pixels; without alpha they are not copied.

    Args:
        pixels: `height` rows from the top, of `width` pixels of `channels` bytes.
        width: in pixels.
        height: in pixels.
        channels: of each pixel.
    """
    array = np.frombuffer(pixels, np.uint8).reshape((height, width) if channels == 1 else (height, width, -1))
    if channels != 4:
        return Picture(array)
    alpha = np.ascontiguousarray(array[..., 3])
    is_opaque = bool((alpha == _OPAQUE).all())
    return Picture(np.ascontiguousarray(array[..., :3]), None if is_opaque else alpha)


def pixels_of(picture: Picture, channels: Channels | None = None) -> NDArray[np.uint8]:
    """The pixels of a picture in sRGB, (H, W), (H, W, 3) or (H, W, 4), C-contiguous; copied only if need be.

    Args:
        picture: whose.
        channels: how many there are to be; default: as the picture has them.
    """
    pixels = picture.pixels
    if picture.icc_profile is not None:
        pixels = to_srgb(pixels, picture.icc_profile)
    if channels is None:
        channels = 4 if picture.alpha is not None else 1 if picture.is_grey else 3
    if channels == 1:
        return np.ascontiguousarray(pixels if pixels.ndim == 2 else as_grey(pixels))
    colours = as_rgb(pixels)
    if channels == 3:
        return np.ascontiguousarray(colours)
    alpha = np.full(pixels.shape[:2], _OPAQUE, np.uint8) if picture.alpha is None else picture.alpha
    return np.dstack((colours, alpha))

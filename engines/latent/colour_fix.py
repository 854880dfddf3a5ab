"""Gives a generated picture the colours of the one that it was made from.

Both methods are those of Wang et al., Exploiting Diffusion Prior for Real-World Image Super-Resolution
(StableSR, 2023), section 3.4: a diffusion model keeps what is in a picture, but not always its colours.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.tiling.tiles import NO_WRAPS, Wraps

__all__ = ["ColourFix", "fix_colours"]

ColourFix = Literal["wavelet", "adain"]

_LEVELS = 5  # of the wavelets, as in StableSR's `wavelet_color_fix.py`


def fix_colours(
    picture: NDArray[np.float32], source: NDArray[np.uint8], method: ColourFix, wraps: Wraps = NO_WRAPS
) -> NDArray[np.float32]:
    """The picture with the colours of the source.

    Args:
        picture: (H, W, 3) in [0, 1].
        source: (h, w, 3) uint8, of the same aspect.
        method: `wavelet` takes all that is coarser than 32 pixels from the source; `adain` gives each channel
            the mean and the deviation that it has there.
        wraps: where the picture goes on at its opposite edge.
    """
    height, width, _ = picture.shape
    fixed = np.empty_like(picture)
    for channel in range(3):
        plane = picture[:, :, channel]
        image = Image.fromarray(source[:, :, channel].astype(np.float32) / 255)
        reference = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
        if method == "wavelet":
            fixed[:, :, channel] = _wavelet(plane, reference, wraps)
        else:
            fixed[:, :, channel] = _adain(plane, reference)
    return fixed


def _adain(plane: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Huang and Belongie, Arbitrary Style Transfer with Adaptive Instance Normalization (2017)."""
    mean, deviation = plane.mean(dtype=np.float64), plane.std(dtype=np.float64)
    wanted_mean, wanted_deviation = reference.mean(dtype=np.float64), reference.std(dtype=np.float64)
    contrast = wanted_deviation / max(deviation, 1e-5)
    fixed: NDArray[np.float32] = (plane * contrast + (wanted_mean - mean * contrast)).astype(np.float32)
    return fixed


def _wavelet(plane: NDArray[np.float32], reference: NDArray[np.float32], wraps: Wraps) -> NDArray[np.float32]:
    return plane - _coarse(plane, wraps) + _coarse(reference, wraps)


def _coarse(plane: NDArray[np.float32], wraps: Wraps) -> NDArray[np.float32]:
    """What is left when the details of all levels are taken away ("à trous": the kernel spreads)."""
    for level in range(_LEVELS):
        for axis in (0, 1):
            plane = _blur(plane, 2**level, axis, ring=wraps[axis])
    return plane


def _blur(plane: NDArray[np.float32], reach: int, axis: int, *, ring: bool) -> NDArray[np.float32]:
    """(1, 2, 1) / 4 of elements so far apart; the edge goes on beyond itself, or at the opposite one."""
    length = plane.shape[axis]
    places = np.arange(length)
    if ring:
        left, right = (places - reach) % length, (places + reach) % length
    else:
        left, right = np.maximum(places - reach, 0), np.minimum(places + reach, length - 1)
    before, after = plane.take(left, axis), plane.take(right, axis)
    blurred: NDArray[np.float32] = (before + 2 * plane + after) / np.float32(4)
    return blurred

"""What pictures with transparency need before and after a network that knows only RGB.

The alpha plane runs through the network as a grey image of its own, as in Real-ESRGAN's own program. Two
things would go wrong with that alone:

- Under alpha 0 a file may say anything, often black, and a network, like any filter, would mix it into the
  visible pixels beside it as a dark fringe. So hidden pixels first take the colour of visible ones nearby,
  and those that can hardly be seen do in part.
- A network that gives back 2 for a flat 0 is a haze over what was transparent. So alpha is kept between the
  smallest and the largest value that the source has there.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from engines.codecs.picture import Picture
from engines.tiling.tiles import NO_WRAPS, Area, Wraps, continued, without

__all__ = ["bound_alpha", "fill_hidden", "with_planes"]

_NEARBY = 2
"""How many pixels far a network visibly mixes colours."""

_ALSO_NEARBY = 16
"""How many pixels of what a picture goes on with are looked at, where it wraps."""


def fill_hidden(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8], wraps: Wraps = NO_WRAPS
) -> NDArray[np.uint8]:
    """The colours with those under alpha 0 replaced by a mean of visible ones nearby.

    A colour counts by what its alpha is of the largest one nearby: beside an opaque pixel one of alpha 1
    hardly does, and is nearly replaced, too. Where all have the same alpha the colours stay as they are.

    Args:
        pixels: (H, W, 3), or (H, W) of a grey picture.
        alpha: (H, W).
        wraps: where the picture goes on at its opposite edge.
    """
    if any(wraps):
        pixels, alpha = (continued(plane, wraps, _ALSO_NEARBY) for plane in (pixels, alpha))
        return without(fill_hidden(pixels, alpha), wraps, _ALSO_NEARBY)
    largest = np.maximum(_largest_nearby(alpha), 1)
    weight = Image.fromarray((alpha.astype(np.uint16) * 255 // largest).astype(np.uint8))
    if weight.getextrema() in {(0, 0), (255, 255)}:
        return pixels
    return np.asarray(_pull_push(Image.fromarray(pixels), weight))


def _largest_nearby(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    for axis in (0, 1):
        largest = alpha.copy()
        for distance in range(1, _NEARBY + 1):
            ahead, behind = (
                np.moveaxis(largest, axis, 0)[part] for part in (slice(distance, None), slice(-distance))
            )
            source = np.moveaxis(alpha, axis, 0)
            np.maximum(ahead, source[:-distance], out=ahead)
            np.maximum(behind, source[distance:], out=behind)
        alpha = largest
    return alpha


def bound_alpha(
    upscaled: NDArray[np.uint8],
    source: NDArray[np.uint8],
    area: Area,
    width: int,
    height: int,
    wraps: Wraps = NO_WRAPS,
) -> NDArray[np.uint8]:
    """A part of an upscaled alpha plane, each pixel within the range of the 3 × 3 of the source there.

    Args:
        upscaled: the part, as it came out of the network.
        source: the alpha plane that went in, whole.
        area: where the part is on the upscaled plane.
        width: of the whole upscaled plane.
        height: of the whole upscaled plane.
        wraps: where the planes go on at their opposite edges.
    """
    rows = _nearest(area.top, area.bottom, len(source), height) + wraps.rows
    columns = _nearest(area.left, area.right, source.shape[1], width) + wraps.columns
    source = continued(source, wraps, 1)
    top, left = max(0, rows[0] - 1), max(0, columns[0] - 1)
    window = Image.fromarray(source[top : rows[-1] + 2, left : columns[-1] + 2])
    low, high = (
        np.asarray(window.filter(extreme(3)))[:, columns - left][rows - top]
        for extreme in (ImageFilter.MinFilter, ImageFilter.MaxFilter)
    )
    return np.clip(upscaled, low, high)


def with_planes(picture: Picture, planes: list[NDArray[np.uint8]], wraps: Wraps = NO_WRAPS) -> Picture:
    """The picture made of what came out of the network: its colours, and its alpha if it has any."""
    if picture.alpha is None:
        return replace(picture, pixels=planes[0])
    pixels, alpha = planes
    height, width = alpha.shape
    bounded = bound_alpha(alpha, picture.alpha, Area(0, 0, width, height), width, height, wraps)
    return replace(picture, pixels=pixels, alpha=bounded)


def _nearest(start: int, stop: int, length: int, upscaled_length: int) -> NDArray[np.intp]:
    """The source pixels below the centres of the upscaled pixels [start, stop), along one axis."""
    return (2 * np.arange(start, stop) + 1) * length // (2 * upscaled_length)


def _pull_push(colours: Image.Image, visible: Image.Image) -> Image.Image:
    """Fill by as much as `visible` is below 255 from a copy of half the size that is filled itself.

    Gortler et al., The Lumigraph, 1996, section 3.4.2: pull means weighted by what is visible, level by
    level, then push each level's colours into the holes of the finer one.
    """
    if visible.getextrema() == (255, 255):
        return colours
    weighted = colours.copy()
    weighted.putalpha(visible)
    half = weighted.reduce(2)  # weighs colours by alpha, so hidden ones do not count
    sums = half.getchannel("A").point(lambda mean: min(255, 4 * mean))
    filled = _pull_push(half.convert(colours.mode), sums)
    box = (0, 0, colours.width / 2, colours.height / 2)  # the last column of `half` may stand for one pixel
    return Image.composite(colours, filled.resize(colours.size, Image.Resampling.BILINEAR, box), visible)

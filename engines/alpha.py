"""Pictures with transparency, for networks that know only RGB.

Real-ESRGAN runs the alpha plane through the network as a grey image of its own, and so does this. The colours
need care too: under alpha 0 a file may say anything, often black, and a network, like any filter, would mix
that into the visible pixels beside it as a dark fringe. So hidden pixels first take the colour of the visible
ones around them.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["alpha_of_plane", "fill_hidden", "plane_of_alpha"]


def plane_of_alpha(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) as a grey image (H, W, 3), a read-only view."""
    return np.broadcast_to(alpha[:, :, np.newaxis], (*alpha.shape, 3))


def alpha_of_plane(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `plane_of_alpha` became in the network, (H, W, 3), as (H, W): its green channel, a view."""
    return plane[:, :, 1]


def fill_hidden(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colours (H, W, 3) with those under alpha 0 replaced by the mean of the nearest others.

    The others stay as they are, and so does everything where all pixels are hidden, or none is.
    """
    visible = Image.fromarray(np.where(alpha > 0, np.uint8(255), np.uint8(0)))
    if visible.getextrema() in {(0, 0), (255, 255)}:
        return pixels
    return np.asarray(_pull_push(Image.fromarray(pixels), visible))


def _pull_push(colours: Image.Image, visible: Image.Image) -> Image.Image:
    """Fill where `visible` is 0, not 255, from a copy of half the size that is filled itself.

    Gortler et al., The Lumigraph, 1996, section 3.4.2: pull means over visible pixels only, level by level,
    then push each level's colours into the holes of the finer one.
    """
    if visible.getextrema() == (255, 255):
        return colours
    weighted = colours.copy()
    weighted.putalpha(visible)
    half = weighted.reduce(2)  # weighs colours by alpha, so hidden ones do not count
    filled = _pull_push(half.convert("RGB"), half.getchannel("A").point(lambda alpha: 255 if alpha else 0))
    box = (0, 0, colours.width / 2, colours.height / 2)  # the last column of `half` may stand for one pixel
    return Image.composite(colours, filled.resize(colours.size, Image.Resampling.BILINEAR, box), visible)

"""A part of a picture."""

from dataclasses import replace

import numpy as np

from engines.codecs.picture import Picture

__all__ = ["crop"]


def crop(picture: Picture, left: int, top: int, width: int, height: int) -> Picture:
    """The part of a picture that begins at `left`, `top`; its profile and metadata are the whole's.

    Args:
        picture: the whole.
        left: pixels left of the part.
        top: pixels above it.
        width: of the part, in pixels; the part lies within the picture.
        height: likewise.
    """
    rows, columns = slice(top, top + height), slice(left, left + width)
    alpha = None if picture.alpha is None else np.ascontiguousarray(picture.alpha[rows, columns])
    return replace(picture, pixels=np.ascontiguousarray(picture.pixels[rows, columns]), alpha=alpha)

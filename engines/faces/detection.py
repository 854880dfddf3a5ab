"""What CenterFace sees in a picture: where it looks, and which of what it finds are faces.

Xu et al., CenterFace: Joint Face Detection and Alignment Using Face as Point, 2020
(https://arxiv.org/abs/1911.03599): of each 4 × 4 pixels the network says whether a face has its centre there,
how large that is, and where its eyes, nose and corners of the mouth are.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.devices.parts import Arrays
from engines.faces.geometry import SIDE, TEMPLATE, Matrix, Points, inverse

__all__ = ["Face", "Look", "chosen", "found_in", "looks", "refined"]

_LEAST, _FINE, _COARSE = 256, 1280, 480
"""The longest side of what is looked at. Faces of a fiftieth of it are found, and those that fill half of the
fine one are not, or only in parts: a coarse look finds these."""

_LARGEST_FINE, _SMALLEST_COARSE = 400, 200
"""The largest face that a fine look is trusted with, and the smallest of a coarse one, in its pixels."""

_MULTIPLE: Final = 32
"""The sides of what the network sees are multiples of it."""

_CELL: Final = 4
_LEAST_SCORE = 0.5
_OVERLAP = 0.4
"""Of two boxes that share more than this part of the smaller one, one is the other's shadow."""

_LEAST_EYES = 5.0
"""Pixels between the eyes below which there is nothing to restore (`eye_dist_threshold` in GFPGAN)."""

_MOST_FACES = 64


class Face(NamedTuple):
    """A face that was found, in pixels of the picture."""

    score: float
    left: float
    top: float
    right: float
    bottom: float
    points: Points
    """(5, 2): eyes, nose, corners of the mouth, left ones of the picture first."""

    @property
    def size(self) -> float:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)


class Look(NamedTuple):
    """A picture as the network is to see it."""

    pixels: NDArray[np.uint8]
    """(h, w, 3), black beyond the picture."""
    scale: float
    """Its pixels / the picture's."""
    smallest: float
    """The size of the faces that it is for, in the picture's pixels."""
    largest: float


def looks(pixels: NDArray[np.uint8]) -> list[Look]:
    """The ways to look at a picture, (H, W, 3): a fine one and, of a large picture, a coarse one."""
    longest = max(pixels.shape[:2])
    fine = min(max(longest, _LEAST), _FINE) / longest
    if fine * longest <= _COARSE:
        return [_look(pixels, fine, 0, math.inf)]
    coarse = _look(pixels, _COARSE / longest, _SMALLEST_COARSE / fine, math.inf)
    return [_look(pixels, fine, 0, _LARGEST_FINE / fine), coarse]


def found_in(look: Look, results: Arrays) -> list[Face]:
    """The faces that a look has shown, in any number for each.

    Args:
        look: what the network saw.
        results: heatmap (1, h, w), size (2, h, w), offset (2, h, w), points (10, h, w), each y before x.
    """
    heat, size, offset, places = (array.astype(np.float64) for array in results)
    faces = []
    for row, column in zip(*np.nonzero(heat[0] > _LEAST_SCORE), strict=True):
        height, width = _CELL * np.exp(size[:, row, column])
        top = _CELL * (row + offset[0, row, column] + 0.5) - height / 2
        left = _CELL * (column + offset[1, row, column] + 0.5) - width / 2
        y, x = places[::2, row, column] * height + top, places[1::2, row, column] * width + left
        numbers = np.array([left, top, left + width, top + height]) / look.scale
        points = np.column_stack([x, y]) / look.scale
        if np.isfinite(numbers).all() and np.isfinite(points).all():
            box = [float(number) for number in numbers]
            face = Face(float(heat[0, row, column]), box[0], box[1], box[2], box[3], points)
            if look.smallest <= face.size <= look.largest:
                faces.append(face)
    return faces


def chosen(faces: Iterable[Face], height: int, width: int) -> list[Face]:
    """Each face once, the largest first, without those that are too small or not in the picture."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not any(_shared(face, other) > _OVERLAP for other in kept):
            kept.append(face)
    usable = [face for face in kept if _eyes(face) >= _LEAST_EYES and _is_within(face, height, width)]
    return sorted(usable, key=lambda face: -face.size)[:_MOST_FACES]


def refined(face: Face, matrix: Matrix, results: Arrays) -> Face:
    """The face with its points as they are seen when it is upright; as it was, if it is not seen then.

    Args:
        face: as it was found.
        matrix: from the picture to the 512 × 512 that the network was run on.
        results: see `found_in`.
    """
    look = Look(np.empty((SIDE, SIDE, 3), np.uint8), 1.0, 0, math.inf)
    near = [seen for seen in found_in(look, results) if _apart(seen) < _MOST_APART]
    if not near:
        return face
    points = max(near, key=lambda seen: seen.score).points
    back = inverse(matrix)
    return face._replace(points=points @ back[:, :2].T + back[:, 2])


_MOST_APART = 60.0
"""Pixels of 512 that the points of the same face may be away from where it was found, on average."""


def _apart(face: Face) -> float:
    return float(np.hypot(*(face.points - TEMPLATE).T).mean())


def _look(pixels: NDArray[np.uint8], scale: float, smallest: float, largest: float) -> Look:
    height, width = (max(1, round(scale * side)) for side in pixels.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    missing = [(0, -side % _MULTIPLE) for side in (height, width)]
    return Look(np.pad(np.asarray(image), [*missing, (0, 0)]), scale, smallest, largest)


def _shared(one: Face, other: Face) -> float:
    """What two boxes share, of the smaller one."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min(_area(one), _area(other))


def _area(face: Face) -> float:
    return (face.right - face.left) * (face.bottom - face.top)


def _eyes(face: Face) -> float:
    return float(np.hypot(*(face.points[0] - face.points[1])))


def _is_within(face: Face, height: int, width: int) -> bool:
    """Whether most of what makes a face is to be seen."""
    inside: Sequence[bool] = [0 <= x < width and 0 <= y < height for x, y in face.points]
    return sum(inside) >= 3

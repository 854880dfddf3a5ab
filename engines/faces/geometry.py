"""Faces in a picture and on the 512 × 512 pixels that restorers know them on.

Coordinates are (x, y) in pixels, from the outer corner of the first one; a matrix (2, 3) takes (x, y, 1).
"""

import math
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.tiling.tiles import Area

__all__ = [
    "SIDE",
    "TEMPLATE",
    "Matrix",
    "Points",
    "area_of",
    "cut",
    "inverse",
    "scale_of",
    "scaled",
    "similarity",
]

Points: TypeAlias = NDArray[np.float64]
"""(N, 2)."""
Matrix: TypeAlias = NDArray[np.float64]

SIDE: Final = 512

TEMPLATE: Final[Points] = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""Where the pictures of FFHQ have eyes, nose and corners of the mouth, left ones of the picture first: what
GFPGAN, RestoreFormer and CodeFormer were trained with (`face_template` of facexlib, in
https://github.com/xinntao/facexlib/blob/master/facexlib/utils/face_restoration_helper.py)."""


def similarity(points: Points, onto: Points) -> Matrix:
    """The turn, scaling and shift that takes points nearest to others, by least squares.

    Umeyama, Least-Squares Estimation of Transformation Parameters Between Two Point Patterns, 1991, equations
    39 to 42; it never mirrors.

    Args:
        points: (N, 2), not all the same.
        onto: (N, 2).
    """
    mean, mean_onto = points.mean(0), onto.mean(0)
    centred = points - mean
    left, singular, right = np.linalg.svd((onto - mean_onto).T @ centred / len(points))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    turn = left @ np.diag(signs) @ right
    matrix = turn * (singular @ signs) / centred.var(0).sum()
    return np.column_stack([matrix, mean_onto - matrix @ mean])


def inverse(matrix: Matrix) -> Matrix:
    """What takes back where a matrix leads."""
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def scaled(matrix: Matrix, across: float, down: float) -> Matrix:
    """The same for a picture that is larger by these factors."""
    larger: Matrix = matrix * np.array([1 / across, 1 / down, 1])
    return larger


def scale_of(matrix: Matrix) -> float:
    """By how much a matrix enlarges."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def area_of(matrix: Matrix, height: int, width: int, margin: float = 0) -> Area:
    """The pixels of a picture (height × width) that the 512 × 512 of a face cover; it may be empty.

    Args:
        matrix: from the picture to the face.
        height: of the picture.
        width: of the picture.
        margin: pixels more at each side.
    """
    left, top, right, bottom = _bounds(matrix, margin)
    return Area(max(0, left), max(0, top), min(width, right), min(height, bottom))


def cut(pixels: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.uint8]:
    """A face, upright on 512 × 512 pixels; what is beyond the picture is its nearest pixel.

    Args:
        pixels: (H, W, 3).
        matrix: from the picture to the face.
    """
    back = inverse(matrix)
    shrink = max(1.0, scale_of(back))  # a large face is reduced first, or it would be sampled too coarsely
    margin = 2 + 4 * shrink
    bounds = _bounds(matrix, margin)
    height, width, _ = pixels.shape
    area = area_of(matrix, height, width, margin)
    if area.width < 1 or area.height < 1:
        raise ValueError("the face is not in the picture")
    region = Image.fromarray(np.ascontiguousarray(pixels[area.top : area.bottom, area.left : area.right]))
    size = (math.ceil(area.width / shrink), math.ceil(area.height / shrink))
    if size != region.size:
        region = region.resize(size, Image.Resampling.LANCZOS)
    across, down = size[0] / area.width, size[1] / area.height
    beyond = [
        (math.ceil((area.top - bounds.top) * down), math.ceil((bounds.bottom - area.bottom) * down)),
        (math.ceil((area.left - bounds.left) * across), math.ceil((bounds.right - area.right) * across)),
    ]
    padded = np.pad(np.asarray(region), [*beyond, (0, 0)], "edge").astype(np.float32)
    there = (back - [[0, 0, area.left], [0, 0, area.top]]) * [[across], [down]]
    there += [[0, 0, beyond[1][0]], [0, 0, beyond[0][0]]]
    planes = [
        Image.fromarray(np.ascontiguousarray(padded[:, :, channel])).transform(
            (SIDE, SIDE), Image.Transform.AFFINE, tuple(there.ravel()), Image.Resampling.BICUBIC
        )
        for channel in range(3)
    ]  # as floats: of bytes Pillow would cut off the fractions
    face: NDArray[np.uint8] = np.rint(np.clip(np.dstack([*map(np.asarray, planes)]), 0, 255)).astype(np.uint8)
    return face


def _bounds(matrix: Matrix, margin: float) -> Area:
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], float)
    back = inverse(matrix)
    there = corners @ back[:, :2].T + back[:, 2]
    left, top = np.floor(there.min(0) - margin).astype(int)
    right, bottom = np.ceil(there.max(0) + margin).astype(int)
    return Area(int(left), int(top), int(right), int(bottom))

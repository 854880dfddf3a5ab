"""Restored faces, put back into the picture with soft edges.

What is put back is the change that a restorer made: what it gave, less the same face of the picture cut the
same way. A face that came back as it went leaves the picture as it is, to the bit, and detail of a picture
that is finer than the 512 pixels that a restorer knows stays in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.codecs.picture import as_grey, as_rgb
from engines.faces.geometry import SIDE, Matrix, area_of, cut, scale_of
from engines.tiling.tiles import Area

__all__ = ["RestoredFace", "blend"]

_EDGE, _FEATHER = 16, 56
"""Pixels of a face's 512: at its edge they stay as they are, then the mask rises to 1. GFPGAN has an edge of
25 and reaches 1 at about 75 (`paste_faces_to_input_image` in facexlib)."""

_CENTRE = (256.0, 290.0)
"""Between the eyes and the mouth."""

_BAND = 256
"""Rows that are blended at once: a face may be as large as the picture."""


@dataclass(frozen=True, slots=True, eq=False)
class RestoredFace:
    """A face as it came out of a restorer."""

    pixels: NDArray[np.uint8]
    """(512, 512, 3)."""
    matrix: Matrix
    """From the picture that it goes into to these."""


def blend(
    pixels: NDArray[np.uint8], faces: Sequence[RestoredFace], visibility: float
) -> tuple[NDArray[np.uint8], list[Area]]:
    """The picture with its faces restored.

    Where two faces meet, each pixel belongs to the one whose centre is nearer, on its own scale.

    Args:
        pixels: (H, W, 3), or (H, W) of a grey picture; changed in place where that can be.
        faces: those that go into it.
        visibility: how much of each is to be seen, from 0 to 1.

    Returns:
        The picture, and the areas that were changed.
    """
    height, width = pixels.shape[:2]
    areas = [area_of(face.matrix, height, width) for face in faces]
    changes = [_change(face, pixels) for face in faces]  # of the picture as it came
    result = pixels if pixels.flags.writeable else pixels.copy()
    for index, (face, area) in enumerate(zip(faces, areas, strict=True)):
        near = [
            other.matrix
            for number, other in enumerate(faces)
            if number != index and area.overlaps(areas[number])
        ]
        for top in range(area.top, area.bottom, _BAND):
            band = Area(area.left, top, area.right, min(area.bottom, top + _BAND))
            _add(result, band, changes[index], face.matrix, near, visibility)
    return result, [area for area in areas if area.width > 0 and area.height > 0]


def _change(face: RestoredFace, pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    """What a restorer changed, (512, 512, C)."""
    before, after = cut(as_rgb(pixels), face.matrix), face.pixels
    if pixels.ndim == 2:
        before, after = as_grey(before)[:, :, np.newaxis], as_grey(after)[:, :, np.newaxis]
    return after.astype(np.int16) - before


def _add(
    result: NDArray[np.uint8],
    band: Area,
    change: NDArray[np.int16],
    matrix: Matrix,
    near: Sequence[Matrix],
    visibility: float,
) -> None:
    """Add the change of one face to a part of the picture."""
    mask = np.float32(visibility) * _mask(band, matrix)
    if near:
        own = _nearness(band, matrix)
        every = own.copy()
        for other in near:
            every += _nearness(band, other)
        np.multiply(mask, own / np.maximum(every, np.float32(1e-30)), out=mask)
    part = result[band.top : band.bottom, band.left : band.right]
    planes = part if part.ndim == 3 else part[:, :, np.newaxis]
    for channel in range(planes.shape[2]):
        there = planes[:, :, channel] + mask * _sampled(change[:, :, channel], band, matrix)
        planes[:, :, channel] = np.rint(np.clip(there, 0, 255))


def _places(band: Area, matrix: Matrix) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the pixels of a band are on a face: x and y, (h, w) each."""
    columns = np.arange(band.left, band.right, dtype=np.float32)[np.newaxis] + np.float32(0.5)
    rows = np.arange(band.top, band.bottom, dtype=np.float32)[:, np.newaxis] + np.float32(0.5)
    x, y = (
        np.float32(across) * columns + np.float32(down) * rows + np.float32(shift)
        for across, down, shift in matrix
    )
    return x, y


def _mask(band: Area, matrix: Matrix) -> NDArray[np.float32]:
    x, y = _places(band, matrix)
    inside = np.minimum(np.minimum(x, SIDE - x), np.minimum(y, SIDE - y))
    rise = np.clip((inside - _EDGE) / _FEATHER, 0, 1)
    return (rise * rise * (3 - 2 * rise)).astype(np.float32)


def _nearness(band: Area, matrix: Matrix) -> NDArray[np.float32]:
    """How near pixels are to the centre of a face: 1 there, 0 beyond its edge, and steep in between."""
    x, y = _places(band, matrix)
    distance = np.hypot(x - _CENTRE[0], y - _CENTRE[1]) / np.float32(SIDE / 2)
    nearness: NDArray[np.float32] = np.clip(1 - distance / 1.5, 0, 1) ** 8
    return nearness


def _sampled(change: NDArray[np.int16], band: Area, matrix: Matrix) -> NDArray[np.float32]:
    """A plane of a change, (512, 512), where the pixels of a band are."""
    plane = Image.fromarray(change.astype(np.float32))
    shrink = max(1.0, scale_of(matrix))  # by what the picture has fewer pixels than the face
    if shrink > 1:
        side = max(1, round(SIDE / shrink))
        plane = plane.resize((side, side), Image.Resampling.LANCZOS)
        matrix = matrix * (side / SIDE)
    there = matrix.copy()
    there[:, 2] += matrix[:, :2] @ (band.left, band.top)
    found = plane.transform(
        (band.width, band.height), Image.Transform.AFFINE, tuple(there.ravel()), Image.Resampling.BICUBIC
    )
    return np.array(found)

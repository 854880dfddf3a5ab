"""Several results of one picture as one: the mean over its flips and turns, and the blend of two models.

Whether a network sees a picture upright, mirrored or lying on its side should not matter, but does a little.
The mean over all eight ways is nearer to the truth than each ("self-ensemble": Lim et al., Enhanced Deep
Residual Networks for Single Image Super-Resolution, 2017, section 3.4; "TTA mode" of the ncnn programs).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import Picture
from engines.latent.diffusion import Diffusion
from engines.tiling.tiles import Wraps
from onnx_models import Model

__all__ = ["TURNS", "Blend", "Mean", "Seamless", "Turn", "blended", "wraps_of"]

Seamless: TypeAlias = Literal["x", "y", "both"]
"""Along which axes a picture goes on at its opposite edge: across, down, or both ways."""

_ROWS: Final = 256
"""How many are blended at once, to need little memory."""


@dataclass(frozen=True, kw_only=True)
class Blend:
    """A second model, and how much of its result is seen over that of the first."""

    model: Model
    visibility: float
    """From 0, nothing, to 1, only this."""
    diffusion: Diffusion | None = None
    """What is wanted of it, if it is a latent upscaler."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways to lay a picture: its rows and columns swapped, then each perhaps reversed."""

    swaps: bool
    upside_down: bool
    mirrored: bool

    def of(self, picture: Picture) -> Picture:
        """The picture, laid so."""
        return _each_plane(picture, self._lay)

    def back(self, picture: Picture) -> Picture:
        """What was laid so, as it was before."""
        return _each_plane(picture, self._lay_back)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height of what is laid so."""
        return (height, width) if self.swaps else (width, height)

    def wraps(self, wraps: Wraps) -> Wraps:
        """Where a picture that wraps does so once it is laid so."""
        return Wraps(wraps.columns, wraps.rows) if self.swaps else wraps

    def _lay(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._reverse(plane.swapaxes(0, 1) if self.swaps else plane)

    def _lay_back(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        plane = self._reverse(plane)
        return plane.swapaxes(0, 1) if self.swaps else plane

    def _reverse(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return plane[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]


TURNS: Final = tuple(
    Turn(swaps, upside_down, mirrored)
    for swaps in (False, True)
    for upside_down in (False, True)
    for mirrored in (False, True)
)
"""All eight, the upright one first."""


class Mean:
    """The mean of some pictures of one size; only their sums are kept."""

    def __init__(self) -> None:
        """Begin with none."""
        self._first: Picture | None = None
        self._count = 0
        self._sums: list[NDArray[np.uint16]] = []

    def add(self, picture: Picture) -> None:
        """Take one more: up to 257."""
        planes = _planes(picture)
        if self._first is None:
            self._first = picture
            self._sums = [np.zeros(plane.shape, np.uint16) for plane in planes]
        for total, plane in zip(self._sums, planes, strict=True):
            np.add(total, plane, out=total)
        self._count += 1

    def picture(self) -> Picture:
        """The mean, rounded, with all else as in the first; it can be had once, and needs at least one."""
        assert self._first is not None
        half = self._count // 2
        return _with_planes(
            self._first, [((total + half) // self._count).astype(np.uint8) for total in self._sums]
        )


def blended(below: Picture, above: Picture, visibility: float) -> Picture:
    """Two pictures of one size as one.

    Args:
        below: what all but the pixels are taken from.
        above: the other.
        visibility: how much of it is seen, from 0 to 1; counted in steps of 1/256.
    """
    share = round(256 * visibility)
    planes = zip(_planes(below), _planes(above), strict=True)
    return _with_planes(below, [_blend(*pair, share) for pair in planes])


def wraps_of(seamless: Seamless | None) -> Wraps:
    """Where a picture wraps that is to have no seams."""
    return Wraps(rows=seamless in ("y", "both"), columns=seamless in ("x", "both"))


def _blend(below: NDArray[np.uint8], above: NDArray[np.uint8], share: int) -> NDArray[np.uint8]:
    result = np.empty_like(below)
    for top in range(0, len(below), _ROWS):
        rows = slice(top, top + _ROWS)
        total = below[rows].astype(np.uint16) * (256 - share) + above[rows].astype(np.uint16) * share + 128
        result[rows] = total >> 8
    return result


def _planes(picture: Picture) -> list[NDArray[np.uint8]]:
    return [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]


def _with_planes(picture: Picture, planes: list[NDArray[np.uint8]]) -> Picture:
    return replace(picture, pixels=planes[0], alpha=None if picture.alpha is None else planes[1])


def _each_plane(picture: Picture, lay: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Picture:
    return _with_planes(picture, [np.ascontiguousarray(lay(plane)) for plane in _planes(picture)])

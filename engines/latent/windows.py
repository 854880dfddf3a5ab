"""Windows over something too large for a model at once, and what they give blended into one.

All windows have one size, so that they can share runs. Where they overlap their weights rise evenly from the
edge, so that no window's edge can be seen; something no larger than a window is taken as it is.

What goes on at its opposite edge, as a texture does, is a ring of windows along that axis, at least two: each
edge of the area lies within one of them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_models import Model

__all__ = ["Blend", "Window", "Windows", "overlap_of"]

Number = TypeVar("Number", bound=np.generic)
Weights: TypeAlias = dict[int, NDArray[np.float32]]


def overlap_of(model: Model, side: int) -> int:
    """The overlap of windows with this side, in pixels: in proportion to that of the model's own."""
    return side * model.overlap // model.tile


@dataclass(frozen=True, slots=True)
class Window:
    """A part, in cells; it goes on at the opposite edge of what it is cut from if it reaches beyond that."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, planes: NDArray[Number], scale: int = 1) -> NDArray[Number]:
        """The part of an array (…, H, W) that has `scale` elements a cell: a view if it is in one piece."""
        rows = _pieces(self.top * scale, self.height * scale, planes.shape[-2])
        columns = _pieces(self.left * scale, self.width * scale, planes.shape[-1])
        bands = [[planes[..., down, across] for across in columns] for down in rows]
        return _joined([_joined(band, -1) for band in bands], -2)


class Windows:
    """As few windows as cover an area, no larger than it takes, evenly spread, with at least the overlap."""

    def __init__(
        self,
        height: int,
        width: int,
        *,
        side: int,
        overlap: int,
        step: int = 1,
        rings: tuple[bool, bool] = (False, False),
    ) -> None:
        """Choose their sides and places.

        Args:
            height: of the area, in cells.
            width: of the area, in cells.
            side: the largest of a window.
            overlap: the least between two windows; less than `side`.
            step: what the sides of several windows are multiples of, as far as `side` is large enough.
            rings: whether the area goes on at its opposite edge, down its rows and across its columns.
        """
        self.height, self.width = height, width
        self._rings = rings
        self.window_height = _side(height, side, overlap, step, ring=rings[0])
        self.window_width = _side(width, side, overlap, step, ring=rings[1])
        self._tops = _starts(height, self.window_height, overlap, ring=rings[0])
        self._lefts = _starts(width, self.window_width, overlap, ring=rings[1])
        self._weights: dict[int, tuple[Weights, Weights]] = {}

    @property
    def area(self) -> int:
        """The cells of all windows together."""
        return len(self._tops) * len(self._lefts) * self.window_height * self.window_width

    def rows(self) -> Iterator[list[Window]]:
        """The windows, row by row."""
        for top in self._tops:
            yield [Window(top, left, self.window_height, self.window_width) for left in self._lefts]

    def __iter__(self) -> Iterator[Window]:
        for row in self.rows():
            yield from row

    def weights(self, window: Window, scale: int = 1) -> NDArray[np.float32]:
        """How much each element of a window counts, (height × scale, width × scale), above 0 and up to 1.

        Those of all windows add up to 1 at every element.
        """
        if scale not in self._weights:
            self._weights[scale] = (
                _weights(self._tops, self.window_height, self.height, scale, ring=self._rings[0]),
                _weights(self._lefts, self.window_width, self.width, scale, ring=self._rings[1]),
            )
        rows, columns = self._weights[scale]
        return rows[window.top][:, np.newaxis] * columns[window.left]


class Blend:
    """An array (…, H, W) that is put together from windows."""

    def __init__(self, windows: Windows, leading: tuple[int, ...], scale: int = 1) -> None:
        """Begin with zeros.

        Args:
            windows: of the area.
            leading: the axes before the height and the width.
            scale: the elements of a cell, in height and in width.
        """
        self._windows, self._scale = windows, scale
        self.planes = np.zeros((*leading, windows.height * scale, windows.width * scale), np.float32)

    def add(self, window: Window, planes: NDArray[np.float32]) -> None:
        """Add what a window gave, once."""
        weighted = planes * self._windows.weights(window, self._scale)
        scale, (height, width) = self._scale, self.planes.shape[-2:]
        top = 0
        for down in _pieces(window.top * scale, window.height * scale, height):
            bottom, left = top + down.stop - down.start, 0
            for across in _pieces(window.left * scale, window.width * scale, width):
                right = left + across.stop - across.start
                self.planes[..., down, across] += weighted[..., top:bottom, left:right]
                left = right
            top = bottom


def _pieces(start: int, length: int, whole: int) -> list[slice]:
    """Where `length` elements from `start` on lie in a ring of `whole`; no more than once around."""
    if start + length <= whole:
        return [slice(start, start + length)]
    return [slice(start, whole), slice(0, start + length - whole)]


def _joined(parts: list[NDArray[Number]], axis: int) -> NDArray[Number]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def _side(length: int, largest: int, overlap: int, step: int, *, ring: bool) -> int:
    """The smallest side of as many windows as are needed of the largest side."""
    if length <= largest:
        return length
    count = _count(length, largest, overlap, ring=ring)
    overlaps = count if ring else count - 1
    return min(largest, math.ceil((length + overlaps * overlap) / count / step) * step)


def _count(length: int, side: int, overlap: int, *, ring: bool) -> int:
    if ring:
        return 2 if length <= side else math.ceil(length / (side - overlap))
    return math.ceil((length - overlap) / (side - overlap))


def _starts(length: int, side: int, overlap: int, *, ring: bool) -> list[int]:
    if ring:
        count = min(length, _count(length, side, overlap, ring=True))
        return [index * length // count for index in range(count)]
    if length <= side:
        return [0]
    count = _count(length, side, overlap, ring=False)
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _weights(starts: list[int], side: int, length: int, scale: int, *, ring: bool) -> Weights:
    """Along one axis, by start: each window's share of the ramps of all that cover an element."""
    ramps = {
        start: _ramp(
            side * scale,
            first=start == starts[0] and not ring,
            last=start == starts[-1] and not ring,
        )
        for start in starts
    }
    places = {start: (start * scale + np.arange(side * scale)) % (length * scale) for start in starts}
    total = np.zeros(length * scale)
    for start, ramp in ramps.items():
        total[places[start]] += ramp
    return {start: (ramp / total[places[start]]).astype(np.float32) for start, ramp in ramps.items()}


def _ramp(side: int, *, first: bool, last: bool) -> NDArray[np.float64]:
    """Rises from the window's edges to its middle; not from an edge of the whole area."""
    places = np.arange(side) + 0.5
    from_start = np.full(side, np.inf) if first else places
    from_end = np.full(side, np.inf) if last else side - places
    ramp: NDArray[np.float64] = np.minimum(np.minimum(from_start, from_end), side / 2)
    return ramp

"""Windows over something too large for a model at once, and what they give blended into one.

All windows have one size, so that they can share runs. Where they overlap their weights rise evenly from the
edge, so that no window's edge can be seen; something no larger than a window is taken as it is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blend", "Window", "Windows"]

Number = TypeVar("Number", bound=np.generic)
Weights: TypeAlias = dict[int, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Window:
    """A part, in cells."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, planes: NDArray[Number], scale: int = 1) -> NDArray[Number]:
        """The part of an array (…, H, W) that has `scale` elements a cell."""
        return planes[
            ...,
            self.top * scale : (self.top + self.height) * scale,
            self.left * scale : (self.left + self.width) * scale,
        ]


class Windows:
    """As few windows as cover an area, no larger than it takes, evenly spread, with at least the overlap."""

    def __init__(self, height: int, width: int, *, side: int, overlap: int, step: int = 1) -> None:
        """Choose their sides and places.

        Args:
            height: of the area, in cells.
            width: of the area, in cells.
            side: the largest of a window.
            overlap: the least between two windows; less than `side`.
            step: what the sides of several windows are multiples of, as far as `side` is large enough.
        """
        self.height, self.width = height, width
        self.window_height = _side(height, side, overlap, step)
        self.window_width = _side(width, side, overlap, step)
        self._tops = _starts(height, self.window_height, overlap)
        self._lefts = _starts(width, self.window_width, overlap)
        self._weights: dict[int, tuple[Weights, Weights]] = {}

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
                _weights(self._tops, self.window_height, self.height, scale),
                _weights(self._lefts, self.window_width, self.width, scale),
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
        part = window.cut(self.planes, self._scale)
        part += planes * self._windows.weights(window, self._scale)


def _side(length: int, largest: int, overlap: int, step: int) -> int:
    """The smallest side of as many windows as are needed of the largest side."""
    if length <= largest:
        return length
    count = _count(length, largest, overlap)
    return min(largest, math.ceil((length + (count - 1) * overlap) / count / step) * step)


def _count(length: int, side: int, overlap: int) -> int:
    return math.ceil((length - overlap) / (side - overlap))


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    count = _count(length, side, overlap)
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _weights(starts: list[int], side: int, length: int, scale: int) -> Weights:
    """Along one axis, by start: each window's share of the ramps of all that cover an element."""
    ramps = {
        start: _ramp(side * scale, first=start == starts[0], last=start == starts[-1]) for start in starts
    }
    total = np.zeros(length * scale)
    for start, ramp in ramps.items():
        total[start * scale : (start + side) * scale] += ramp
    return {
        start: (ramp / total[start * scale : (start + side) * scale]).astype(np.float32)
        for start, ramp in ramps.items()
    }


def _ramp(side: int, *, first: bool, last: bool) -> NDArray[np.float64]:
    """Rises from the window's edges to its middle; not from an edge of the whole area."""
    places = np.arange(side) + 0.5
    from_start = np.full(side, np.inf) if first else places
    from_end = np.full(side, np.inf) if last else side - places
    ramp: NDArray[np.float64] = np.minimum(np.minimum(from_start, from_end), side / 2)
    return ramp

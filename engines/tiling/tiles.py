"""Tile geometry: which windows of an image run through a network, and which part of each result is kept.

Convolutions look beyond a pixel's own position, so a tile is run with `overlap` pixels of context on every
side that has a neighbour, and only its core is kept. At the image's border the image is continued by its
mirror image: left to itself a network takes what it does not see for black, and darkens edges and corners
(flat red, (255, 0, 0), by 72 levels). On photographs of which the rest was known, a mirror came nearest:

| root mean square, 4 pixels wide | mirrored | reflected | edge repeated | not continued |
|---------------------------------|----------|-----------|---------------|---------------|
| x4plus                          | 6.3      | 7.1       | 6.8           | 5.8           |
| x4plus-anime                    | 4.6      | 5.8       | 6.0           | 5.0           |
| animevideov3                    | 2.7      | 3.6       | 3.7           | 2.6           |

A texture that is to be laid side by side with itself goes on at its opposite edge instead, as far as the
network sees, so that no seam shows between two of its results.

All windows of one plan have the same size, so that they share one compiled shape and can share a batch.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BORDER",
    "NO_WRAPS",
    "Area",
    "Segment",
    "Tile",
    "TilePlan",
    "Wraps",
    "continued",
    "plan_tiles",
    "split_axis",
    "without",
]


BORDER = 10
"""By how many pixels most models have an image continued (`Model.border`)."""


class Area(NamedTuple):
    """A rectangle of an image's pixels; `right` and `bottom` are just outside of it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    def overlaps(self, other: "Area") -> bool:
        """Whether they share a pixel."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


class Wraps(NamedTuple):
    """Along which axes a picture goes on at its opposite edge: down its rows, across its columns."""

    rows: bool = False
    columns: bool = False


NO_WRAPS = Wraps()


def continued(plane: NDArray[np.uint8], wraps: Wraps, margin: int) -> NDArray[np.uint8]:
    """A plane, (H, W, …), with `margin` pixels of its opposite edge on either side where it wraps."""
    if not any(wraps):
        return plane
    margins = [(margin * wrapped, margin * wrapped) for wrapped in wraps]
    return np.pad(plane, [*margins, *[(0, 0)] * (plane.ndim - 2)], "wrap")


def without(plane: NDArray[np.uint8], wraps: Wraps, margin: int) -> NDArray[np.uint8]:
    """A plane without what it was continued by."""
    rows, columns = (slice(margin, -margin) if wrapped else slice(None) for wrapped in wraps)
    return np.ascontiguousarray(plane[rows, columns])


class Segment(NamedTuple):
    """One axis of a tile, in input pixels: run [start, stop), keep [keep_start, keep_stop)."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def split_axis(
    length: int,
    limit: int,
    overlap: int,
    *,
    border: int = 0,
    end: int | None = None,
    step: int = 1,
    sides: Sequence[int] = (),
) -> list[Segment]:
    """Cover `length` pixels with equal windows of at most `limit`, neighbours sharing at least 2 × `overlap`.

    The first window begins `border` pixels before the first pixel, the last one ends at least as many, or
    `end`, behind the last.

    The cut between two neighbours is in the middle of what they share, so every kept pixel has at least
    `overlap` pixels of context. The windows are as short as their number allows, rounded up to a multiple of
    `step` where the limit lets them: tiles of one shape can share a batch, whatever picture they are of. Or
    they have that one of `sides` with which they have the fewest pixels together, where any are given.

    Raises:
        ValueError: if `limit` leaves no core between two overlaps.
    """
    continued = length + border + (border if end is None else end)
    if sides:
        limit = min(sides, key=lambda side: side * _windows(continued, side, overlap))
    count = _windows(continued, limit, overlap)
    if count == _TOO_MANY:
        raise ValueError(f"a window of {limit} px has no core between two overlaps of {overlap} px")
    if sides:
        size = limit
    elif count == 1:
        size = continued
    else:
        shortest = -(-(continued + 2 * overlap * (count - 1)) // count)
        size = min(limit, -(-shortest // step) * step)
    if count == 1:
        return [Segment(-border, size - border, 0, length)]
    starts = [index * (continued - size) // (count - 1) - border for index in range(count)]
    cuts = [0, *((left + size + right) // 2 for left, right in pairwise(starts)), length]
    return [
        Segment(start, start + size, keep_start, keep_stop)
        for start, (keep_start, keep_stop) in zip(starts, pairwise(cuts), strict=True)
    ]


def _windows(continued: int, size: int, overlap: int) -> int:
    """How many windows of a size it takes; `_TOO_MANY` where they would have no core."""
    if continued <= size:
        return 1
    if size <= 2 * overlap:
        return _TOO_MANY
    return -(-(continued - 2 * overlap) // (size - 2 * overlap))


_TOO_MANY = sys.maxsize


@dataclass(frozen=True, slots=True)
class Tile:
    """One window of an image."""

    rows: Segment
    columns: Segment
    wraps: Wraps = NO_WRAPS

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window's pixels, (h, w, …), of `image` (H, W, …).

        Where it wraps the image goes on at its opposite edge, elsewhere it is continued by its mirror image.
        """
        window = image
        for axis, segment in enumerate((self.rows, self.columns)):
            length = image.shape[axis]
            if segment.start >= 0 and segment.stop <= length:
                window = window[(slice(None),) * axis + (slice(segment.start, segment.stop),)]
            elif self.wraps[axis]:
                window = window.take(np.arange(segment.start, segment.stop), axis, mode="wrap")
            else:
                window = window.take(_mirrored(segment, length), axis)
        return window

    def kept(self, scale: int) -> Area:
        """The core's place on the upscaled image."""
        rows, columns = self.rows, self.columns
        return Area(
            columns.keep_start * scale,
            rows.keep_start * scale,
            columns.keep_stop * scale,
            rows.keep_stop * scale,
        )

    def paste(
        self,
        upscaled: NDArray[np.uint8],
        canvas: NDArray[np.uint8],
        scale: int,
        *,
        top: int = 0,
        left: int = 0,
    ) -> None:
        """Copy the core of `upscaled` (h × scale, w × scale, …) to its place on `canvas` (H × scale, …).

        `top` and `left` are the image's row and column that the canvas begins with, in input pixels.
        """
        rows, columns = self.rows, self.columns
        canvas[
            (rows.keep_start - top) * scale : (rows.keep_stop - top) * scale,
            (columns.keep_start - left) * scale : (columns.keep_stop - left) * scale,
        ] = upscaled[
            (rows.keep_start - rows.start) * scale : (rows.keep_stop - rows.start) * scale,
            (columns.keep_start - columns.start) * scale : (columns.keep_stop - columns.start) * scale,
        ]


def _mirrored(segment: Segment, length: int) -> NDArray[np.intp]:
    """The places of a segment on an axis that goes on as its mirror image on either side."""
    places = np.arange(segment.start, segment.stop) % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """The tiles of one image, row by row; all `height` × `width` input pixels large.

    Together they keep the image, and where it wraps perhaps some of what it goes on with.
    """

    height: int
    width: int
    rows: tuple[Segment, ...]
    columns: tuple[Segment, ...]
    wraps: Wraps = NO_WRAPS

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[Tile]:
        return (Tile(rows, columns, self.wraps) for rows in self.rows for columns in self.columns)


def plan_tiles(
    height: int,
    width: int,
    *,
    tile: int,
    overlap: int,
    border: int = 0,
    step: int = 1,
    sides: Sequence[int] = (),
    wraps: Wraps = NO_WRAPS,
    beyond: int = 0,
    width_step: int = 1,
) -> TilePlan:
    """Cut an image of `height` × `width` into tiles of at most `tile` × `tile` pixels.

    An image of no more pixels than one tile runs whole, whatever its shape, unless there are `sides`; what it
    is continued by counts.

    Args:
        height: of the image, in pixels.
        width: likewise.
        tile: the largest side of one.
        overlap: how far the network looks.
        border: by how much the image is continued where it does not wrap.
        step: see `split_axis`.
        sides: those that tiles may have, the longest of them `tile`; any where there are none.
        wraps: where the image goes on at its opposite edge.
        beyond: how many pixels of what it goes on with are kept on either side.
        width_step: what the width of tiles is a multiple of, where `tile` is one. The image is continued on
            its right until its width is a multiple, too, however it is cut.
    """
    kept = [beyond if wrapped else 0 for wrapped in wraps]
    borders = [overlap if wrapped else border for wrapped in wraps]
    lengths = [length + 2 * more for length, more in zip((height, width), kept, strict=True)]
    whole = [length + 2 * more for length, more in zip(lengths, borders, strict=True)]
    ends = [borders[0], borders[1] + -whole[1] % width_step]
    if not sides and whole[0] * whole[1] <= tile * tile:
        axes = [
            [Segment(-border, length + end, 0, length)]
            for length, border, end in zip(lengths, borders, ends, strict=True)
        ]
    else:
        axes = [
            split_axis(length, tile, overlap, border=border, end=end, step=multiple, sides=sides)
            for length, border, end, multiple in zip(
                lengths, borders, ends, (step, math.lcm(step, width_step)), strict=True
            )
        ]
    rows, columns = (
        tuple(Segment(*(place - more for place in segment)) for segment in axis)
        for axis, more in zip(axes, kept, strict=True)
    )
    return TilePlan(
        height=rows[0].stop - rows[0].start,
        width=columns[0].stop - columns[0].start,
        rows=rows,
        columns=columns,
        wraps=wraps,
    )

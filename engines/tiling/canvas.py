"""Where finished tiles become the output, holding no more of the native image than is needed.

A result of a native size is pasted in place. For any other the native image can be many times larger than the
output (sixteen times for a factor of just above 1), so it never exists as a whole. Each row of tiles is
reduced to the output's width as soon as it is complete, and these rows to the output's, some at a time. Which
of them are computed together does not depend on the tiles, and so neither does the result.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import as_grey, resize_columns, resize_rows
from engines.tiling.tiles import Area, Tile, TilePlan

__all__ = ["BEYOND", "Canvas", "OnArea"]

OnArea = Callable[[Area, NDArray[np.uint8]], None]

_LOBES = 3
"""How many output rows Lanczos looks beyond a row, on each side."""

BEYOND = _LOBES + 1
"""Input pixels beyond an edge at which Lanczos looks: an output pixel is at most as large as one of these."""

_TOGETHER = 64
"""Output rows that are computed at once."""


@dataclass(slots=True, eq=False)
class _Band:
    """One row of tiles, at the native size, while tiles of it are missing."""

    pixels: NDArray[np.uint8]
    missing: int


class Canvas:
    """The output of one plane. Tiles may be pasted by several threads, in any order; each once.

    Attributes:
        pixels: (height, width, 3) uint8, or (height, width) of a grey plane; whole when `is_complete`.
    """

    def __init__(
        self,
        plan: TilePlan,
        scale: int,
        width: int,
        height: int,
        on_area: OnArea | None = None,
        *,
        is_grey: bool = False,
    ) -> None:
        """Begin with an empty output.

        Args:
            plan: the tiles of the input.
            scale: native, of the network.
            width: of the output, in pixels; at most `scale` times the input's. Where it is `scale` times,
                and the height too, the plan keeps just the input; else, where it wraps, `BEYOND` more.
            height: likewise.
            on_area: called, by whoever pastes or reduces, with each area of the output and its pixels as
                soon as it is finished: it does not change any more. The areas are disjoint, the same for any
                order of the tiles, and cover the output by the time that it is complete. Must not raise.
            is_grey: whether the plane is grey: what comes out of a network is made so.
        """
        self.pixels = np.empty((height, width) if is_grey else (height, width, 3), np.uint8)
        self._on_area = on_area
        self._plan = plan
        self._scale = scale
        # Of a plane that wraps more is kept than the output shows, for the reduction to look at.
        self._beyond_rows, self._beyond_columns = -plan.rows[0].keep_start, -plan.columns[0].keep_start
        self._kept_height = (plan.rows[-1].keep_stop + self._beyond_rows) * scale
        self._kept_width = (plan.columns[-1].keep_stop + self._beyond_columns) * scale
        self._native_height = self._kept_height - 2 * self._beyond_rows * scale
        self._is_native = (height, width) == (self._kept_height, self._kept_width)
        self._lock = threading.Lock()
        self._missing = len(plan)
        self._bands: dict[int, _Band] = {}
        self._numbers = {rows: number for number, rows in enumerate(plan.rows)}
        self._next_band = 0
        self._first_row = 0  # of the native rows that are kept: the one that `_rows` begins with
        self._rows = np.empty((0, width, *self.pixels.shape[2:]), np.uint8)
        self._done = 0  # output rows

    @property
    def is_complete(self) -> bool:
        """Whether every output row is there."""
        return self._missing == 0 if self._is_native else self._done == len(self.pixels)

    def paste(self, tile: Tile, upscaled: NDArray[np.uint8]) -> bool:
        """Take a finished tile, (h, w, 3) or grey. Returns whether there may now be something to `reduce`."""
        if upscaled.ndim > self.pixels.ndim:
            upscaled = as_grey(upscaled)
        if self._is_native:
            tile.paste(upscaled, self.pixels, self._scale)
            self._finish(tile.kept(self._scale))
            with self._lock:
                self._missing -= 1
            return False
        rows = tile.rows
        number = self._numbers[rows]
        with self._lock:
            if (band := self._bands.get(number)) is None:
                band = self._bands[number] = self._new_band(rows.keep_stop - rows.keep_start)
        tile.paste(upscaled, band.pixels, self._scale, top=rows.keep_start, left=-self._beyond_columns)
        with self._lock:
            band.missing -= 1
            return band.missing == 0

    def reduce(self) -> None:
        """Turn the complete bands that are next into output rows. For one thread at a time."""
        while (band := self._bands.get(self._next_band)) is not None and band.missing == 0:
            with self._lock:
                del self._bands[self._next_band]
            self._next_band += 1
            margin = self._beyond_columns * self._scale
            reduced = resize_columns(band.pixels, self.pixels.shape[1], margin, self._kept_width - margin)
            self._rows = np.concatenate((self._rows, reduced))
            self._reduce_rows()

    def _new_band(self, height: int) -> _Band:
        pixels = np.empty((height * self._scale, self._kept_width, *self.pixels.shape[2:]), np.uint8)
        return _Band(pixels, len(self._plan.columns))

    def _reduce_rows(self) -> None:
        """Make the output rows that the native rows at hand suffice for; drop those not needed any more."""
        known = self._first_row + len(self._rows)
        height, width = self.pixels.shape[:2]
        while self._done < height:
            stop = min(self._done + _TOGETHER, height)
            first, last = self._rows_for(self._done, stop)
            if last > known:
                break
            native = self._rows[first - self._first_row : last - self._first_row]
            top, bottom = (self._place(row) - first for row in (self._done, stop))
            count = stop - self._done
            self.pixels[self._done : stop] = resize_rows(native, count, top, min(bottom, len(native)))
            self._finish(Area(0, self._done, width, stop))
            self._done = stop
        needed = known if self._done == height else self._rows_for(self._done, height)[0]
        self._rows = self._rows[needed - self._first_row :].copy()
        self._first_row = needed

    def _rows_for(self, start: int, stop: int) -> tuple[int, int]:
        """The native rows that output rows are made of: the first, and the one after the last."""
        first = math.floor(self._place(start - _LOBES)) - 1
        last = math.ceil(self._place(stop + _LOBES)) + 1
        return max(0, first), min(last, self._kept_height)

    def _place(self, row: int) -> float:
        """Where the upper edge of an output row is among the native rows that are kept."""
        return self._beyond_rows * self._scale + row * self._native_height / len(self.pixels)

    def _finish(self, area: Area) -> None:
        if self._on_area is not None:
            self._on_area(area, self.pixels[area.top : area.bottom, area.left : area.right])

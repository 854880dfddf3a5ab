"""Where finished tiles become the output, holding no more of the native image than is needed.

A result of a native size is pasted in place. For any other the native image can be many times larger than the
output (sixteen times for a factor of just above 1), so it never exists as a whole: each row of tiles is
reduced to output rows as soon as it is complete, and dropped.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import as_grey, resize_rows
from engines.tiling.tiles import Area, Tile, TilePlan

__all__ = ["Canvas", "OnArea"]

OnArea = Callable[[Area, NDArray[np.uint8]], None]

# Lanczos with three lobes looks at this many output pixels on each side; one more for rounding.
_SUPPORT = 3 + 1


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
        """Begin with an output of which nothing is done.

        Args:
            plan: the tiles of the input.
            scale: native, of the network.
            width: of the output, in pixels; at most `scale` times the input's.
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
        self._native_height = plan.rows[-1].keep_stop * scale
        self._native_width = plan.columns[-1].keep_stop * scale
        self._is_native = (height, width) == (self._native_height, self._native_width)
        self._lock = threading.Lock()
        self._missing = len(plan)
        self._bands: dict[int, _Band] = {}
        self._next_band = 0
        self._first_row = 0  # native row that `_rows` begins with
        self._rows = np.empty((0, self._native_width, *self.pixels.shape[2:]), np.uint8)
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
        number = self._plan.rows.index(rows)
        with self._lock:
            band = self._bands.setdefault(number, self._new_band(rows.keep_stop - rows.keep_start))
        tile.paste(upscaled, band.pixels, self._scale, top=rows.keep_start)
        with self._lock:
            band.missing -= 1
            return band.missing == 0

    def reduce(self) -> None:
        """Turn the complete bands that are next into output rows. For one thread at a time."""
        while (band := self._bands.get(self._next_band)) is not None and band.missing == 0:
            with self._lock:
                del self._bands[self._next_band]
            self._next_band += 1
            self._rows = np.concatenate((self._rows, band.pixels))
            self._reduce_rows()

    def _new_band(self, height: int) -> _Band:
        pixels = np.empty((height * self._scale, *self._rows.shape[1:]), np.uint8)
        return _Band(pixels, len(self._plan.columns))

    def _reduce_rows(self) -> None:
        """Make the output rows that the native rows at hand suffice for; drop those not needed any more."""
        height, width = self.pixels.shape[:2]
        ratio = self._native_height / height
        known = self._first_row + len(self._rows)
        stop = height if known == self._native_height else int(known / ratio - _SUPPORT)
        if stop <= self._done:
            return
        top = self._done * ratio - self._first_row
        bottom = min(stop * ratio - self._first_row, len(self._rows))
        self.pixels[self._done : stop] = resize_rows(self._rows, width, stop - self._done, top, bottom)
        self._finish(Area(0, self._done, width, stop))
        self._done = stop
        unused = max(0, math.floor((stop - _SUPPORT) * ratio) - self._first_row)
        self._first_row += unused
        self._rows = self._rows[unused:].copy()

    def _finish(self, area: Area) -> None:
        if self._on_area is not None:
            self._on_area(area, self.pixels[area.top : area.bottom, area.left : area.right])

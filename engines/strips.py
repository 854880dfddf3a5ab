"""Networks whose end runs in strips, which bounds the memory of a tile.

The last layers of an ESRGAN work at the size of the result, where a tile of 560 pixels takes gigabytes. They
see a few pixels far: a strip with so much context comes out as it does in the whole (`onnx_models.split`).
What comes before them runs once for the whole tile.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engines.tiles import Segment, Tile, split_axis
from onnx_models import Split

__all__ = ["BUDGET", "Body", "StripSession", "Tail"]

Body = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(N, H, W, 3) → the values between the two parts, (N, C, H, W)."""
Tail = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
"""(N, C, h, w), contiguous → (N, h × scale, w × scale, 3)."""

BUDGET = 256 << 20
"""Bytes that what one layer reads and writes of a strip may take."""
_LEAST = 8
"""Pixels of a strip beside its context, however long it is."""


class StripSession:
    """A network in two parts, whose second one takes a strip at a time.

    Args:
        body, tail: the parts, as some runtime computes them.
        split: what is known of them.
        scale: of the network.
    """

    def __init__(self, body: Body, tail: Tail, split: Split, scale: int) -> None:
        self._body, self._tail = body, tail
        self._halo, self._scale = split.halo, scale
        self._pixels = BUDGET // split.bytes_per_pixel

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Session.run`."""
        values = self._body(tiles)
        count, _, height, width = values.shape
        upscaled = np.empty((count, height * self._scale, width * self._scale, 3), np.uint8)
        for strip in self._strips(count, height, width):
            rows, columns = strip.rows, strip.columns
            part = values[:, :, rows.start : rows.stop, columns.start : columns.stop]
            for result, whole in zip(self._tail(np.ascontiguousarray(part)), upscaled, strict=True):
                strip.paste(result, whole, self._scale)
        return upscaled

    def _strips(self, count: int, height: int, width: int) -> list[Tile]:
        """Cut across the longer side, so that a strip is as short as it can be."""
        shorter, longer = sorted((height, width))
        limit = max(self._pixels // (count * shorter), _LEAST + 2 * self._halo)
        whole, cuts = Segment(0, shorter, 0, shorter), split_axis(longer, limit, self._halo)
        if height >= width:
            return [Tile(rows, whole) for rows in cuts]
        return [Tile(whole, columns) for columns in cuts]

"""Networks whose end runs in blocks, which bounds the memory of a tile.

The last layers of an ESRGAN work at the size of the result, where a tile of 569 pixels takes gigabytes. They
see a few pixels far: a block with so much context comes out as it does in the whole (`onnx_models.Split`).
What comes before them runs once for the whole tile.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from engines.tiling.tiles import plan_tiles
from onnx_models import Split

__all__ = ["BUDGET", "BlockSession", "Body", "Tail"]

Body = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(N, H, W, 3) → the values between the two parts, (N, C, H, W)."""
Tail = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
"""(N, C, h, w), contiguous → (N, h × scale, w × scale, 3)."""

BUDGET = 64 << 20
"""Bytes that what one layer reads and writes of a block may take; runtimes need up to three times as much.

An ESRGAN gets blocks of 90 pixels a side: a tenth more work for its last layers, 1 to 2 % for the whole."""

_LEAST = 8
"""The side of a block beside its context, however large the network is."""


class BlockSession:
    """A network in two parts, whose second one takes a block at a time."""

    def __init__(
        self, body: Body, tail: Tail, split: Split, scale: int, release: Iterable[Callable[[], None]] = ()
    ) -> None:
        """Choose the size of a block.

        Args:
            body: the first part, as some runtime computes it.
            tail: the second part, likewise.
            split: what is known of them.
            scale: of the network.
            release: called to give back the memory that large runs took.
        """
        self._release = tuple(release)
        self._body, self._tail = body, tail
        self._halo, self._scale = split.halo, scale
        self._side = max(math.isqrt(BUDGET // split.bytes_per_pixel), _LEAST + 2 * split.halo)

    def run(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Session.run`."""
        values = self._body(tiles)
        _, _, height, width = values.shape
        upscaled = np.empty((len(tiles), height * self._scale, width * self._scale, 3), np.uint8)
        for block in plan_tiles(height, width, tile=self._side, overlap=self._halo):
            rows, columns = block.rows, block.columns
            for index in range(len(tiles)):
                part = values[index : index + 1, :, rows.start : rows.stop, columns.start : columns.stop]
                (result,) = self._tail(np.ascontiguousarray(part))
                block.paste(result, upscaled[index], self._scale)
        return upscaled

    def release_memory(self) -> None:
        """See `Session.release_memory`."""
        for release in self._release:
            release()

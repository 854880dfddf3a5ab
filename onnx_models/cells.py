"""The cells that FFDNet takes: 2 × 2 pixels each (see `onnx_models.ffdnet`)."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["CELL", "CHANNELS", "pack"]

CELL = 2
"""The side of a cell, in pixels."""

CHANNELS = 3 * CELL**2
"""Of a cell."""


def pack(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The cells of a picture, (H, W, 3) to (⌈H / 2⌉, ⌈W / 2⌉, 12); an odd side's last row is repeated.

    The twelve are the four pixels of red, then of green, then of blue, as PyTorch's `pixel_unshuffle` has it.
    """
    height, width, _ = pixels.shape
    even = np.pad(pixels, [(0, height % CELL), (0, width % CELL), (0, 0)], "edge")
    cells = even.reshape(len(even) // CELL, CELL, even.shape[1] // CELL, CELL, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(cells.reshape(*cells.shape[:2], CHANNELS))

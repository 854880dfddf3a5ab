"""The few sides that tiles on a GPU may have.

A GPU is slow at a shape that it has not just run: cuDNN chooses an algorithm anew for each convolution, which
takes x4plus some tenths of a second by estimate, unless the shape has a CUDA graph; and of these a session
keeps so many (`engines.devices.cuda.graphs.MOST_GRAPHS`). So pictures are cut, and continued by their mirror
image, to sides of a short list: those that common pictures need. In a trace of 2000 pictures, half of them of
common sizes, x4plus and animevideov3 compute 10 % more pixels so, in tiles of 28 and 25 shapes and not 1000.
"""

from collections.abc import Sequence

from engines.tiling.tiles import BORDER, split_axis

__all__ = ["side_for", "sides_for"]

_PICTURES = (128, 256, 512, 768, 832, 1024)
"""Common sides of pictures, above all of those that were generated."""

_NEARLY = 0.95
"""Of the next longer side: a side from there on would save little."""


def sides_for(tile: int, overlap: int) -> Sequence[int]:
    """The sides of tiles, in input pixels, rising.

    Args:
        tile: the largest side, which is one of them.
        overlap: of neighbouring tiles; less than half of `tile`.
    """
    sides = [tile]
    wanted = {split_axis(picture, tile, overlap, border=min(BORDER, overlap))[0] for picture in _PICTURES}
    for side in sorted((window.stop - window.start for window in wanted), reverse=True):
        if side < _NEARLY * sides[-1]:
            sides.append(side)
    return sides[::-1]


def side_for(picture: int, tile: int, overlap: int) -> int:
    """The side of the tiles that a picture with a side of `picture` pixels is cut to."""
    border = min(BORDER, overlap)
    window = split_axis(picture, tile, overlap, border=border, sides=sides_for(tile, overlap))[0]
    return window.stop - window.start

"""Which tiles no network needs to see, being of one level: empty pages, and much of the alpha of sprites."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.tiling.tiles import Tile, TilePlan

__all__ = ["FlatTiles", "flat_tiles"]

FlatTiles: TypeAlias = dict[tuple[int, Tile], NDArray[np.uint8]]
"""By the number of the plane and the tile: the colour, (3,), or the level of grey, ()."""


def flat_tiles(planes: list[NDArray[np.uint8]], plan: TilePlan) -> FlatTiles:
    """The tiles of one colour whose result is that colour.

    Networks shift some colours, such as pure blue, by up to 25 levels wherever they are. So a tile of a
    picture in several colours must go the same way as its neighbours, or its edges would show. Alpha is kept
    within the range of the source (`bound_alpha`), and so each of its tiles may go its own way.

    Args:
        planes: the colours and, if there is one, the alpha plane: (H, W, 3) or (H, W).
        plan: how they are cut.
    """
    colours, *alpha = planes
    flat: FlatTiles = {}
    if _is_flat(colours):
        flat |= {(0, tile): colours[0, 0] for tile in plan}
    for plane in alpha:
        for tile in plan:
            window = tile.cut(plane)
            if _is_flat(window):
                flat[1, tile] = window[0, 0]
    return flat


def _is_flat(plane: NDArray[np.uint8]) -> bool:
    return all(bool((rows == plane[0, 0]).all()) for rows in (plane[0], plane))  # the first row tells most

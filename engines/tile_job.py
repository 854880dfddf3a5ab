"""A picture's tiles on their way through the scheduler."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import as_rgb
from engines.devices.parts import Arrays
from engines.errors import ModelError
from engines.job import Item, Job
from engines.threads import Threads
from engines.tiling.canvas import Canvas
from engines.tiling.flat import FlatTiles
from engines.tiling.tiles import Tile, TilePlan

__all__ = ["TileJob"]


@dataclass(slots=True, eq=False, kw_only=True)
class TileJob(Job):
    """One picture under way: its planes, and what is done of them.

    The devices' threads paste the tiles, the resampler's thread reduces bands.
    """

    planes: list[NDArray[np.uint8]]
    """(H, W, 3), or (H, W) of a grey one; (H, W, C) of what is packed for a network of its own."""
    canvases: list[Canvas]
    plan: TilePlan
    flat: FlatTiles
    scale: int
    """Of the network."""
    by_area: bool
    """Whether an area is to be finished in all planes before the next; it holds bands of all at once."""
    resampler: Threads
    beside: Arrays = ()
    """What the network takes beside each tile."""
    count: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the tiles."""
        self.count = len(self.plan) * len(self.planes)
        Job.__post_init__(self)

    @property
    def is_complete(self) -> bool:
        """Whether the result is there: all tiles are pasted, and reduced where that is needed."""
        return self.left == 0 and all(canvas.is_complete for canvas in self.canvases)

    def tiles(self) -> Iterator["_JobTile"]:
        """The tiles that a network must see, in the order in which they are to run."""
        return (_JobTile(self, index, tile) for index, tile in self._all() if (index, tile) not in self.flat)

    def take_flat(self) -> None:
        """Finish the other tiles. Blocks."""
        for index, tile in self._all():
            if (level := self.flat.get((index, tile))) is not None:
                height, width = self.plan.height * self.scale, self.plan.width * self.scale
                self.take(index, tile, np.broadcast_to(level, (height, width, *level.shape)))

    def _all(self) -> Iterator[tuple[int, Tile]]:
        indices = range(len(self.planes))
        if self.by_area:
            return ((index, tile) for tile in self.plan for index in indices)
        return ((index, tile) for index in indices for tile in self.plan)

    def take(self, plane: int, tile: Tile, upscaled: NDArray[np.uint8]) -> None:
        """Paste a finished tile; any thread may call this."""
        canvas = self.canvases[plane]
        if canvas.paste(tile, upscaled):
            self.resampler.submit(self._reduce, canvas)
        self.on_loop(self.advance)

    def _reduce(self, canvas: Canvas) -> None:
        try:
            canvas.reduce()
        except Exception as error:  # noqa: BLE001 - such as a MemoryError: whoever waits must not wait for ever
            self.fail(ModelError(f"the result could not be resized: {error!r}"))
        else:
            self.on_loop(self.end_if_complete)


@dataclass(frozen=True, slots=True, eq=False)
class _JobTile(Item[TileJob]):
    """A tile of one plane."""

    plane: int
    tile: Tile

    def inputs(self) -> Arrays:
        return (as_rgb(self.tile.cut(self.job.planes[self.plane])), *self.job.beside)

    def finish(self, result: Arrays) -> None:
        self.job.take(self.plane, self.tile, result[0])

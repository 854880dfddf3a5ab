"""A task's tiles on their way through the scheduler."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engines.devices.parts import Arrays
from engines.errors import EngineError, ModelError
from engines.progress import Progress
from engines.tiling.canvas import Canvas
from engines.tiling.tiles import Tile, TilePlan

__all__ = ["JobTile", "TileJob"]


@dataclass(slots=True, eq=False, kw_only=True)
class TileJob:
    """One picture under way: its planes, what is done of them, and who waits.

    The tiles are read and finished in the devices' threads, bands reduced in the resampler's; everything else
    belongs to the event loop.
    """

    planes: list[NDArray[np.uint8]]
    canvases: list[Canvas]
    plan: TilePlan
    by_area: bool
    """Whether an area is to be finished in all planes before the next; it holds bands of all at once."""
    resampler: ThreadPoolExecutor
    on_start: Callable[[], None] | None
    on_progress: Progress | None
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None] = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.done = self.loop.create_future()
        self.left = self.count

    @property
    def count(self) -> int:
        return len(self.plan) * len(self.planes)

    def tiles(self) -> Iterator["JobTile"]:
        indices = range(len(self.planes))
        if self.by_area:
            return (JobTile(self, index, tile) for tile in self.plan for index in indices)
        return (JobTile(self, index, tile) for index in indices for tile in self.plan)

    def begin(self) -> None:
        """A tile is taken by a device."""
        on_start, self.on_start = self.on_start, None
        if on_start is not None:
            self._on_loop(on_start)

    def take(self, plane: int, tile: Tile, upscaled: NDArray[np.uint8]) -> None:
        canvas = self.canvases[plane]
        if canvas.paste(tile, upscaled):
            self.resampler.submit(self._reduce, canvas)
        self._on_loop(self._advance)

    def tile_failed(self, error: EngineError) -> None:
        self._on_loop(partial(self._fail, error))

    def _on_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any longer
            self.loop.call_soon_threadsafe(callback)

    def _reduce(self, canvas: Canvas) -> None:
        try:
            canvas.reduce()
        except Exception as error:  # noqa: BLE001 - such as a MemoryError: whoever waits must hear of it
            self.tile_failed(ModelError(f"the result could not be resized: {error!r}"))
        else:
            self._on_loop(self._end_if_complete)

    def _advance(self) -> None:
        self.left -= 1
        if self.done.done():
            return
        self._end_if_complete()
        if self.on_progress:
            self.on_progress(1 - self.left / self.count)

    def _end_if_complete(self) -> None:
        if not self.done.done() and self.left == 0 and all(canvas.is_complete for canvas in self.canvases):
            self.done.set_result(None)

    def _fail(self, error: EngineError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True, eq=False)
class JobTile:
    """A tile of a job, as the executor wants it."""

    job: TileJob
    plane: int
    tile: Tile

    def read(self) -> Arrays:
        self.job.begin()
        return (self.tile.cut(self.job.planes[self.plane]),)

    def finish(self, result: Arrays) -> None:
        self.job.take(self.plane, self.tile, result[0])

    def fail(self, error: EngineError) -> None:
        self.job.tile_failed(error)

"""Removes noise of a given strength from a picture, before whatever upscales it.

The network, FFDNet, runs tile by tile among the tiles of all other tasks. It sees each 2 × 2 pixels as one
cell (see `onnx_models.ffdnet`). Tiles are cut from the cells, with as many around them as the network sees,
so that they are what the whole picture would be. Beyond the border it sees black, as the reference does.
"""

import asyncio
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import as_grey, as_rgb
from engines.devices.parts import Part
from engines.errors import DeviceOutOfMemoryError
from engines.progress import Progress
from engines.scheduling.executor import Executor
from engines.scheduling.work import PartKey
from engines.threads import Threads
from engines.tile_job import TileJob
from engines.tiling.canvas import Canvas
from engines.tiling.tiles import TilePlan, plan_tiles
from onnx_models import CELL, pack

__all__ = ["Denoiser"]

_REACH = 12
"""How many cells far the network sees: one for each of its convolutions."""

_TILE = 280
"""The largest side of a tile, in cells. The 96 channels of a layer take 30 MB."""

_SMALLEST = 2 * _REACH + 16
_STEP = 16
"""Sides of tiles are multiples of it: those of different pictures can share a run."""


class Denoiser:
    """What removes noise, on the devices of an executor.

    Attributes:
        reach: how many pixels far it sees.
    """

    reach = CELL * _REACH

    def __init__(self, executor: Executor, pixels: Threads, resampler: Threads) -> None:
        """Begin with nothing to do.

        Args:
            executor: runs the tiles.
            pixels: threads for the work beside the devices.
            resampler: as of `TileJob`.
        """
        self._executor = executor
        self._pixels = pixels
        self._resampler = resampler

    async def denoise(
        self,
        pixels: NDArray[np.uint8],
        part: Part,
        strength: float,
        *,
        account: str,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
    ) -> NDArray[np.uint8]:
        """The picture with less noise. Cancelling the call frees the tiles that have not run yet.

        Args:
            pixels: (H, W, 3), or (H, W) if it is grey.
            part: the network, loaded.
            strength: the standard deviation of the noise that is to go, in levels of 255.
            account: whose share of the devices it uses.
            on_start: called on the event loop when a device takes the first tile.
            on_progress: called on the event loop with the finished share, from 0 to 1.

        Returns:
            As `pixels`.

        Raises:
            ModelError: if a tile cannot be run.
        """
        height, width = pixels.shape[:2]
        cells = await self._pixels.run(lambda: pack(as_rgb(pixels)))
        largest = _TILE
        while True:
            plan = self._plan(cells, part, largest)
            try:
                found = await self._run(cells, part, plan, strength, account, on_start, on_progress)
                break
            except DeviceOutOfMemoryError:
                largest = math.isqrt(plan.height * plan.width // 2)
                if plan.height * plan.width <= _SMALLEST**2:
                    raise
        found = found[:height, :width]
        return await self._pixels.run(as_grey, found) if pixels.ndim == 2 else found

    def _plan(self, cells: NDArray[np.uint8], part: Part, largest: int) -> TilePlan:
        if (room := self._executor.room(part)) is not None:
            largest = min(largest, math.isqrt(room) // CELL)
        height, width, _ = cells.shape
        return plan_tiles(height, width, tile=max(largest, _SMALLEST), overlap=_REACH, step=_STEP)

    async def _run(
        self,
        cells: NDArray[np.uint8],
        part: Part,
        plan: TilePlan,
        strength: float,
        account: str,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
    ) -> NDArray[np.uint8]:
        """The picture that is made of the cells: at most a row and a column larger than the one that came."""
        height, width, channels = cells.shape
        canvas = Canvas(plan, CELL, CELL * width, CELL * height)
        job = TileJob(
            planes=[cells],
            canvases=[canvas],
            plan=plan,
            flat={},
            scale=CELL,
            by_area=False,
            resampler=self._resampler,
            beside=(np.asarray(np.float32(strength)),),
            on_start=on_start,
            on_progress=on_progress,
            loop=asyncio.get_running_loop(),
        )
        pixels = CELL**2 * plan.height * plan.width
        key = PartKey(part, ((plan.height, plan.width, channels), ()), pixels, pixels)
        await job.run(self._executor, account, key, job.tiles())
        return canvas.pixels

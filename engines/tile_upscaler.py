"""Networks on the devices: a picture's tiles run among those of all other tasks.

1. The smallest native scale of the model that reaches the wanted size is chosen; its network is built and
   loaded on first use.
2. The picture is cut into tiles; the alpha plane, where there is one, becomes tiles of its own.
3. The tiles meet those of other tasks in the scheduler and run on whichever device is free. If one does not
   fit into a device's memory, the picture is cut again into smaller ones.
   Tiles of one level need no device; grey planes, of which alpha is one, are grey again after it.
4. Where the wanted size is not a native one, what is finished is reduced to it row by row (Lanczos).
5. Beyond the model's scale the picture goes through it again.
"""

import asyncio
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import Picture
from engines.devices.sessions import Network
from engines.errors import DeviceOutOfMemoryError, ModelError
from engines.loading import LoadedModels
from engines.passes import sizes_of_passes
from engines.progress import Progress, rising, within
from engines.scheduling.executor import Executor
from engines.scheduling.work import TileKey
from engines.threads import Threads
from engines.tile_job import TileJob
from engines.tiling.alpha import fill_hidden, with_planes
from engines.tiling.canvas import BEYOND, Canvas
from engines.tiling.flat import flat_tiles
from engines.tiling.menu import sides_for
from engines.tiling.regions import OnRegion, RegionReporter
from engines.tiling.tiles import NO_WRAPS, TilePlan, Wraps, plan_tiles
from onnx_models import FactorTooLargeError, Model, NoSuchLevelError

__all__ = ["TileUpscaler"]

_SMALLEST_CORE: Final = 16

_WIDTH_STEP: Final = 16
"""Of tiles on a CPU, in pixels. OpenVINO takes twice as long for some widths as for those beside them: 277,
286, 371, 539 and 569 (measured in bf16 on two cores with AMX)."""
_WIDE: Final = 192
"""Of a picture, in pixels: below that all widths are about equally fast, and more pixels cost more."""

_LITTLE: Final = 2**18
"""Samples that are looked at in 0.1 ms: to wake a thread takes longer."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one pass is to do: to reach a size that is within the model's reach."""

    model: Model
    size: tuple[int, int]
    account: str
    denoise: int | None
    keep_hidden: bool
    wraps: Wraps


class TileUpscaler:
    """Upscales pictures by networks that take tiles."""

    def __init__(
        self,
        executor: Executor,
        models: LoadedModels,
        pixels: Threads,
        resampler: Threads,
    ) -> None:
        """Upscale on the devices of `executor`.

        Args:
            executor: what runs the tiles.
            models: the networks.
            pixels: threads for the work beside the devices.
            resampler: as of `TileJob`.
        """
        self._executor = executor
        self._models = models
        self._pixels = pixels
        self._resampler = resampler

    async def upscale(
        self,
        picture: Picture,
        model: Model,
        *,
        size: tuple[int, int],
        account: str,
        keep_hidden: bool,
        denoise: int | None,
        wraps: Wraps = NO_WRAPS,
        on_start: Callable[[], None] | None,
        on_progress: Progress | None,
        on_region: OnRegion | None,
    ) -> Picture:
        """See `Upscaler.upscale`.

        Args:
            picture: what to upscale.
            model: an entry of the catalogue.
            size: the wanted width and height.
            account: as there.
            keep_hidden: as there.
            denoise: as there.
            wraps: where the picture goes on at its opposite edge.
            on_start: as there.
            on_progress: as there.
            on_region: as there.

        Raises:
            ModelError: as there.
        """
        report = rising(on_progress)
        sizes = sizes_of_passes((picture.width, picture.height), size, model.reach)
        ends = list(itertools.accumulate(wide * high for wide, high in sizes))
        begun = 0
        for reached, end in zip(sizes, ends, strict=True):
            last = end == ends[-1]
            one = _Pass(model, reached, account, denoise, keep_hidden, wraps)
            progress = within(report, begun / ends[-1], end / ends[-1])
            picture = await self._pass(picture, one, on_start, progress, on_region if last else None)
            begun, on_start, denoise = end, None, None
        return picture

    async def _pass(
        self,
        picture: Picture,
        wanted: _Pass,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
        on_region: OnRegion | None,
    ) -> Picture:
        model, (width, height), wraps = wanted.model, wanted.size, wanted.wraps
        try:
            weights = model.weights_for(max(width / picture.width, height / picture.height), wanted.denoise)
        except (FactorTooLargeError, NoSuchLevelError) as error:
            raise ModelError(str(error)) from error
        network = await self._models.network(model, weights)
        planes = [picture.pixels]
        if picture.alpha is not None:
            planes.append(picture.alpha)
            if not wanted.keep_hidden:
                planes[0] = await self._pixels.run(fill_hidden, picture.pixels, picture.alpha, wraps)
        regions = RegionReporter(picture, width, height, on_region, wraps) if on_region else None
        plan = self._plan(picture, wanted, network, self._largest_tile(model))
        while True:
            try:
                upscaled = await self._run(planes, plan, network, wanted, on_start, on_progress, regions)
                break
            except DeviceOutOfMemoryError:
                half = math.isqrt(plan.height * plan.width // 2)
                if (smaller := self._plan(picture, wanted, network, half)) == plan:
                    raise
                plan = smaller
        if picture.alpha is None:
            return with_planes(picture, upscaled, wraps)
        return await self._pixels.run(with_planes, picture, upscaled, wraps)

    def _plan(self, picture: Picture, wanted: _Pass, network: Network, largest: int) -> TilePlan:
        """Tiles of at most `largest` pixels a side, smaller where the devices had no memory for them."""
        if (room := self._executor.room(network)) is not None:
            largest = min(largest, math.isqrt(room))
        model = wanted.model
        width_step = 1 if self._executor.in_batches or picture.width < _WIDE else _WIDTH_STEP
        if model.tile < 2 * model.overlap + _WIDTH_STEP:
            width_step = 1  # a tile might lie wholly in what a picture is continued by
        if largest == self._largest_tile(model):
            largest += -largest % width_step
        tile = max(largest, _smallest_tile(model))
        native = wanted.size == (picture.width * network.scale, picture.height * network.scale)
        return plan_tiles(
            picture.height,
            picture.width,
            tile=tile,
            overlap=model.overlap,
            border=min(model.border, model.overlap),
            sides=sides_for(tile, model.overlap) if self._executor.in_batches else (),
            wraps=wanted.wraps,
            beyond=0 if native else BEYOND,
            width_step=width_step,
        )

    def _largest_tile(self, model: Model) -> int:
        if self._executor.in_batches or model.cpu_tile is None:
            return model.tile
        return min(model.tile, model.cpu_tile)

    async def _run(
        self,
        planes: list[NDArray[np.uint8]],
        plan: TilePlan,
        network: Network,
        wanted: _Pass,
        on_start: Callable[[], None] | None,
        on_progress: Progress | None,
        regions: RegionReporter | None,
    ) -> list[NDArray[np.uint8]]:
        """The planes as they come out of the network, at the wanted size."""
        if sum(plane.size for plane in planes) <= _LITTLE:
            flat = flat_tiles(planes, plan)
        else:
            flat = await self._pixels.run(flat_tiles, planes, plan)
        job = TileJob(
            planes=planes,
            canvases=[
                Canvas(
                    plan,
                    network.scale,
                    *wanted.size,
                    partial(regions.take, index) if regions else None,
                    is_grey=plane.ndim == 2,
                )
                for index, plane in enumerate(planes)
            ],
            plan=plan,
            flat=flat,
            scale=network.scale,
            by_area=regions is not None,
            resampler=self._resampler,
            on_start=on_start,
            on_progress=on_progress,
            loop=asyncio.get_running_loop(),
        )
        if len(flat) < job.count:
            key = TileKey(network, plan.height, plan.width)
            self._executor.submit(wanted.account, job, key, job.tiles())
        else:
            job.begin()
        try:
            if flat:
                await self._pixels.run(job.take_flat)
            await job.done
        finally:
            self._executor.cancel(job)
        return [canvas.pixels for canvas in job.canvases]


def _smallest_tile(model: Model) -> int:
    """The side below which hardly anything would be left between the overlaps; in input pixels."""
    return min(model.tile, 2 * model.overlap + _SMALLEST_CORE)

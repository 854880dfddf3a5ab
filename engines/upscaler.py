"""The public face: a picture in, a larger picture out.

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
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.activity import Activity
from engines.auxiliaries import Auxiliaries
from engines.codecs.picture import Picture
from engines.devices.cores import usable_cores
from engines.devices.device import Device
from engines.devices.sessions import Network
from engines.errors import DeviceOutOfMemoryError, ModelError
from engines.latent.diffusion import Diffusion
from engines.latent.prompts import prompts_of
from engines.loading import LoadedModels
from engines.passes import sizes_of_passes
from engines.progress import Progress, rising, within
from engines.scheduling.calibration import Calibration
from engines.scheduling.executor import PATIENCE, Executor
from engines.scheduling.work import TileKey
from engines.threads import Threads
from engines.tile_job import TileJob
from engines.tiling.alpha import fill_hidden, with_planes
from engines.tiling.canvas import Canvas
from engines.tiling.flat import flat_tiles
from engines.tiling.regions import OnRegion, RegionReporter
from engines.tiling.tiles import BORDER, TilePlan, plan_tiles
from onnx_models import (
    FactorTooLargeError,
    LatentWeights,
    Model,
    NoSuchLevelError,
)

__all__ = ["Upscaler"]


class Upscaler:
    """Upscales pictures on the devices of this machine. Close it when done.

    Attributes:
        auxiliaries: what other models do before an upscale, or after it.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        model_directory: Path,
        *,
        stand_in: Callable[[], Device] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Start the threads of the devices; nothing is loaded yet.

        Args:
            devices: where networks run, at least one.
            model_directory: where ONNX files are kept, built there on first use.
            stand_in: finds the device that takes over when all are lost; it may raise anything.
            patience: seconds that one run may take; a device that takes longer is given up.
        """
        self.devices = tuple(devices)
        calibration = Calibration(model_directory / "batches.json")
        self._executor = Executor(self.devices, calibration=calibration, stand_in=stand_in, patience=patience)
        self._pixels = Threads(usable_cores(), "pixels")
        self._models = LoadedModels(self._executor, model_directory, self._pixels)
        self._task_ids = itertools.count()
        self._resampler = Threads(1, "resampler")
        self.auxiliaries = Auxiliaries(self._executor, self._models, self._pixels, self._resampler)

    @property
    def usable(self) -> bool:
        """Whether it can upscale: not closed, and at least one device still works."""
        return self._executor.usable

    @property
    def stand_in(self) -> Device | None:
        """The device that took over when all others were lost, if that has happened."""
        return self._executor.stand_in

    def activity(self) -> Activity:
        """What the devices have done, and what waits for them. Blocks for milliseconds."""
        return self._executor.activity(self._models.names)

    def load(self, model: Model, on_progress: Progress | None = None) -> None:
        """Build and load all native scales of a model, so that the first task does not wait for it. Blocks.

        Args:
            model: an entry of the catalogue.
            on_progress: called in this thread with the finished share, rising to 1.

        Raises:
            ModelError: if one of them cannot be built or loaded.
        """
        self._models.load(model, on_progress)

    def cuts(self, model: Model, diffusion: Diffusion) -> list[str]:
        """Which prompts, of `prompt` and `negative_prompt`, are longer than the model takes. Blocks.

        Raises:
            ModelError: if the model takes no prompts, or its tokenizer cannot be read.
        """
        if model.latent is None or model.latent.tokenizer is None:
            raise ModelError(f"{model.name} takes no prompts")
        prompts = prompts_of(Path(model.latent.tokenizer.path))
        return [name for name in ("prompt", "negative_prompt") if prompts.is_cut(getattr(diffusion, name))]

    async def upscale(
        self,
        picture: Picture,
        model: Model,
        *,
        width: int,
        height: int,
        account: str = "",
        diffusion: Diffusion | None = None,
        keep_hidden: bool = False,
        denoise: int | None = None,
        on_start: Callable[[], None] | None = None,
        on_progress: Progress | None = None,
        on_region: OnRegion | None = None,
    ) -> Picture:
        """The picture at `width` × `height` pixels, its colour profile and metadata unchanged.

        Cancelling the call frees the tiles that have not run yet.

        Args:
            picture: what to upscale.
            model: an entry of the catalogue.
            width: the wanted one, in pixels; beyond the model's scale it takes several passes.
            height: likewise.
            account: whose share of the device the tiles use.
            diffusion: what is wanted of a latent upscaler; other models know nothing of it.
            keep_hidden: upscale the colours of pixels that are not seen as they are, as textures want it
                whose alpha is a mask; they are otherwise replaced by those of visible pixels nearby.
            denoise: how much noise to take away first, one of the model's levels; None for none of it.
            on_start: called on the event loop when a device takes the first tile; again if the picture is
                begun again with smaller ones.
            on_progress: called on the event loop with the finished share, from 0 to 1.
            on_region: called with each part of the result as soon as it is finished: the core of a tile or,
                for a size that is not native, full rows; roughly row by row. The regions are disjoint and
                cover the result, unless it was begun again with smaller tiles. Called in the threads that
                compute, several at once perhaps, so it must be quick; if it raises, that is logged. All
                calls come before this one returns, but after it was cancelled there may be some more.

        Raises:
            ModelError: if the model cannot be built, loaded or run, has no such level of noise, or if the
                upscaler is closed.
        """
        if model.latent is not None:
            latent = await self._models.latent(model, model.latent)
            return await latent.upscale(
                picture,
                model,
                diffusion or _default_diffusion(model.latent),
                size=(width, height),
                account=account,
                keep_hidden=keep_hidden,
                on_start=on_start,
                on_progress=on_progress,
                on_region=on_region,
            )
        report = rising(on_progress or (lambda _share: None))
        sizes = sizes_of_passes((picture.width, picture.height), (width, height), model.reach)
        ends = list(itertools.accumulate(wide * high for wide, high in sizes))
        begun = 0
        for size, end in zip(sizes, ends, strict=True):
            progress = within(report, begun / ends[-1], end / ends[-1])
            last = end == ends[-1]
            picture = await self._pass(
                picture,
                model,
                size,
                account,
                denoise,
                keep_hidden,
                on_start,
                progress,
                on_region if last else None,
            )
            begun, on_start, denoise = end, None, None
        return picture

    def close(self) -> None:
        """Let the batch that runs finish; every upscale under way ends in a ModelError. Blocks."""
        self._executor.close()
        self._models.close()
        self._resampler.close()
        self._pixels.close()

    async def _pass(
        self,
        picture: Picture,
        model: Model,
        size: tuple[int, int],
        account: str,
        denoise: int | None,
        keep_hidden: bool,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
        on_region: OnRegion | None,
    ) -> Picture:
        """The picture at `size` (width, height), which is within the model's reach."""
        width, height = size
        try:
            weights = model.weights_for(max(width / picture.width, height / picture.height), denoise)
        except (FactorTooLargeError, NoSuchLevelError) as error:
            raise ModelError(str(error)) from error
        network = await self._models.network(model, weights)
        planes = [picture.pixels]
        if picture.alpha is not None:
            planes.append(picture.alpha)
            if not keep_hidden:
                planes[0] = await self._pixels.run(fill_hidden, picture.pixels, picture.alpha)
        regions = RegionReporter(picture, width, height, on_region) if on_region else None
        largest = model.tile
        while True:
            plan = self._plan(picture, model, network, largest)
            try:
                upscaled = await self._run(
                    planes, plan, network, size, account, on_start, on_progress, regions
                )
                break
            except DeviceOutOfMemoryError:
                largest = math.isqrt(plan.height * plan.width // 2)
                if plan.height * plan.width <= _smallest_tile(model) ** 2:
                    raise
        return await self._pixels.run(with_planes, picture, upscaled)

    def _plan(self, picture: Picture, model: Model, network: Network, largest: int) -> TilePlan:
        """Tiles of at most `largest` pixels a side, smaller where the devices had no memory for them."""
        if (room := self._executor.room(network)) is not None:
            largest = min(largest, math.isqrt(room))
        return plan_tiles(
            picture.height,
            picture.width,
            tile=max(largest, _smallest_tile(model)),
            overlap=model.overlap,
            border=min(BORDER, model.overlap),
            step=_SHARED_STEP if any(device.largest_batch > 1 for device in self.devices) else 1,
        )

    async def _run(
        self,
        planes: list[NDArray[np.uint8]],
        plan: TilePlan,
        network: Network,
        size: tuple[int, int],
        account: str,
        on_start: Callable[[], None] | None,
        on_progress: Progress | None,
        regions: RegionReporter | None,
    ) -> list[NDArray[np.uint8]]:
        """The planes as they come out of the network, at `size` (width, height)."""
        flat = await self._pixels.run(flat_tiles, planes, plan)
        job = TileJob(
            planes=planes,
            canvases=[
                Canvas(
                    plan,
                    network.scale,
                    *size,
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
        task = next(self._task_ids)
        if len(flat) < job.count:
            self._executor.submit(account, task, TileKey(network, plan.height, plan.width), job.tiles())
        else:
            job.begin()
        try:
            if flat:
                await self._pixels.run(job.take_flat)
            await job.done
        finally:
            self._executor.cancel(task)
        return [canvas.pixels for canvas in job.canvases]


def _default_diffusion(weights: LatentWeights) -> Diffusion:
    return Diffusion(steps=weights.default_steps, scheduler=weights.default_scheduler)


def _smallest_tile(model: Model) -> int:
    """The side below which hardly anything would be left between the overlaps; in input pixels."""
    return min(model.tile, 2 * model.overlap + _SMALLEST_CORE)


_SMALLEST_CORE = 16

_SHARED_STEP = 32
"""Tiles that may share a batch have sides of multiples of this: few shapes, for little more work."""

"""One latent upscaler on the devices: its parts run among the tiles, and the parts, of all other tasks.

The shell around `latent`. The denoising steps of different requests meet in the scheduler like tiles do:
those of equal size are computed together on a device that takes more than one at a time.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import Picture, as_grey, as_rgb, resize
from engines.devices.parts import Arrays, Part
from engines.errors import DeviceOutOfMemoryError
from engines.latent.colour_fix import fix_colours
from engines.latent.denoising import Calls, Runs, upscale_latent
from engines.latent.diffusion import Diffusion
from engines.latent.prompts import prompts_of
from engines.part_job import run_part
from engines.passes import sizes_of_passes
from engines.progress import Progress, rising, within
from engines.scheduling.executor import Executor
from engines.scheduling.work import PartKey
from engines.threads import Threads
from engines.tiling.alpha import fill_hidden, with_planes
from engines.tiling.regions import OnRegion, RegionReporter
from engines.tiling.tiles import Area
from onnx_models import LatentWeights, Model

__all__ = ["LatentUpscaler"]

_SMALLEST_WINDOW = 128
"""The side below which a window would show too little for a picture to be made of it; in input pixels."""

_TEXT_PIXELS = 64 * 64
"""What a run of the text encoder costs, in pixels of a picture; it is small beside everything else."""


class LatentUpscaler:
    """A latent upscaler whose parts are loaded."""

    def __init__(self, weights: LatentWeights, executor: Executor, threads: Threads) -> None:
        """Load the parts on all devices. Blocks.

        Args:
            weights: verified.
            executor: what runs them.
            threads: for the work beside the devices.

        Raises:
            ModelError: if something cannot be loaded.
        """
        self._weights = weights
        self._executor = executor
        self._threads = threads
        self._prompts = None if weights.tokenizer is None else prompts_of(Path(weights.tokenizer.path))
        self._parts = {
            name: Part(Path(first.path), data=tuple(Path(file.path) for file in data))
            for name, (first, *data) in weights.parts.items()
        }
        for part in self._parts.values():
            executor.load(part)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that run on the devices."""
        return tuple(self._parts.values())

    async def upscale(
        self,
        picture: Picture,
        model: Model,
        wanted: Diffusion,
        *,
        size: tuple[int, int],
        account: str,
        keep_hidden: bool,
        on_start: Callable[[], None] | None,
        on_progress: Progress | None,
        on_region: OnRegion | None,
    ) -> Picture:
        """See `Upscaler.upscale`.

        Beyond the model's scale the picture goes through it again. Alpha is not generated but resized; the
        whole result is one region, as it is finished at once.

        Args:
            picture: what to upscale.
            model: whose weights they are; its windows are as large as its tiles.
            wanted: what is asked for.
            size: the wanted width and height.
            account: as there.
            keep_hidden: as there.
            on_start: as there.
            on_progress: as there.
            on_region: as there.

        Raises:
            ModelError: if a run fails, or what comes out is no picture.
        """
        source = as_rgb(picture.pixels)
        if picture.alpha is not None and not keep_hidden:
            source = await self._threads.run(fill_hidden, source, picture.alpha)
        sizes = sizes_of_passes((picture.width, picture.height), size, self._weights.scale)
        ends = list(itertools.accumulate(width * height for width, height in sizes))
        report = rising(on_progress or (lambda _share: None))
        pixels, begun = source, 0
        for reached, end in zip(sizes, ends, strict=True):
            progress = within(report, begun / ends[-1], end / ends[-1])
            generated = await self._enlarged(pixels, model, wanted, account, on_start, progress)
            if wanted.colour_fix is not None and end == ends[-1]:
                generated = await self._threads.run(fix_colours, generated, source, wanted.colour_fix)
            pixels = await self._threads.run(_as_pixels, generated, reached)
            begun, on_start = end, None
        regions = RegionReporter(picture, *size, on_region) if on_region else None
        return await self._threads.run(_finish, pixels, picture, regions)

    async def _enlarged(
        self,
        pixels: NDArray[np.uint8],
        model: Model,
        wanted: Diffusion,
        account: str,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
    ) -> NDArray[np.float32]:
        """The picture, (H, W, 3), at the model's scale in [0, 1], not clipped.

        If a window does not fit into a device's memory, it is begun again with smaller ones.
        """
        smallest = min(_SMALLEST_WINDOW, model.tile)
        largest = model.tile
        while True:
            side = max(smallest, min([largest, *self._rooms()]))
            overlap = side * model.overlap // model.tile
            try:
                return await self._pass(pixels, wanted, side, overlap, account, on_start, on_progress)
            except DeviceOutOfMemoryError:
                height, width = (min(side, length) for length in pixels.shape[:2])
                largest = math.isqrt(height * width // 2)
                if height * width <= smallest**2:
                    raise

    def _rooms(self) -> list[int]:
        """The largest sides of a window that parts have memory for, where that is known."""
        rooms = [self._executor.room(part) for name, part in self._parts.items() if name != "text_encoder"]
        return [math.isqrt(room) for room in rooms if room is not None]

    async def _pass(
        self,
        pixels: NDArray[np.uint8],
        wanted: Diffusion,
        side: int,
        overlap: int,
        account: str,
        on_start: Callable[[], None] | None,
        on_progress: Progress,
    ) -> NDArray[np.float32]:
        tokens = None
        if self._prompts is not None:
            tokens = self._prompts.tokens(wanted.prompt), self._prompts.tokens(wanted.negative_prompt)
        calls = upscale_latent(pixels, tokens, wanted, self._weights, side=side, overlap=overlap)
        results: list[Arrays] | None = None
        done = 0.0
        while not isinstance(runs := await self._threads.run(_go_on, calls, results), np.ndarray):
            results = await run_part(
                self._executor,
                self._key(runs),
                runs.inputs,
                account=account,
                on_start=on_start,
                on_progress=within(on_progress, done, runs.share),
            )
            done, on_start = runs.share, None
        return runs

    def _key(self, runs: Runs) -> PartKey:
        shapes = tuple(array.shape for array in runs.inputs[0])
        pixels, output_pixels = _TEXT_PIXELS, 0
        if runs.part == "vae_encoder":
            pixels = shapes[0][0] * shapes[0][1]
        elif runs.part != "text_encoder":
            height, width = shapes[0][-2:]
            pixels = height * width * self._weights.cell**2 // self._weights.spread**2
            output_pixels = pixels * self._weights.scale**2
        if runs.part != "vae_decoder":
            output_pixels = 0
        return PartKey(self._parts[runs.part], shapes, pixels, output_pixels)


def _as_pixels(generated: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A generated picture, which is spent, at `size` (width, height)."""
    np.clip(generated, 0, 1, out=generated)
    generated *= 255
    pixels = np.rint(generated, out=generated).astype(np.uint8)
    return pixels if pixels.shape[1::-1] == size else resize(pixels, *size)


def _finish(pixels: NDArray[np.uint8], picture: Picture, regions: RegionReporter | None) -> Picture:
    """The result, made of its colours and of the picture's alpha."""
    height, width, _ = pixels.shape
    planes = [as_grey(pixels) if picture.is_grey else pixels]
    if picture.alpha is not None:
        planes.append(resize(picture.alpha, width, height))
    for index, plane in enumerate(planes):
        if regions is not None:
            regions.take(index, Area(0, 0, width, height), plane)
    return with_planes(picture, planes)


def _go_on(calls: Calls, results: list[Arrays] | None) -> Runs | NDArray[np.float32]:
    """What is to be run next, or the picture; as a StopIteration cannot leave a thread."""
    try:
        return next(calls) if results is None else calls.send(results)
    except StopIteration as end:
        picture: NDArray[np.float32] = end.value
        return picture

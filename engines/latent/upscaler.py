"""One latent upscaler on the devices: the shell around `upscale_latent`."""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engines.codecs.picture import Picture, as_grey, as_rgb, resize
from engines.devices.parts import Part
from engines.latent.colour_fix import fix_colours
from engines.latent.denoising import upscale_latent
from engines.latent.diffusion import Diffusion
from engines.latent.parts import LoadedParts, as_pixels
from engines.passes import sizes_of_passes
from engines.progress import Progress, rising, within
from engines.scheduling.executor import Executor
from engines.threads import Threads
from engines.tiling.alpha import fill_hidden, with_planes
from engines.tiling.regions import OnRegion, report_whole
from onnx_models import LatentWeights, Model

__all__ = ["LatentUpscaler"]


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
        self._threads = threads
        self._loaded = LoadedParts(weights, executor, threads, spread=weights.spread, scale=weights.scale)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that run on the devices."""
        return self._loaded.parts

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
        report = rising(on_progress)
        pixels, begun = source, 0
        for reached, end in zip(sizes, ends, strict=True):
            generated = await self._loaded.in_windows(
                model,
                model.tile,
                pixels,
                partial(upscale_latent, pixels, self._loaded.tokens(wanted), wanted, self._weights),
                account=account,
                on_start=on_start,
                on_progress=within(report, begun / ends[-1], end / ends[-1]),
            )
            if wanted.colour_fix is not None and end == ends[-1]:
                generated = await self._threads.run(fix_colours, generated, source, wanted.colour_fix)
            pixels = await self._threads.run(_at_size, generated, reached)
            begun, on_start = end, None
        return await self._threads.run(_finished, pixels, picture, on_region)


def _at_size(generated: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A generated picture, which is spent, as pixels of `size` (width, height)."""
    pixels = as_pixels(generated)
    return pixels if pixels.shape[1::-1] == size else resize(pixels, *size)


def _finished(pixels: NDArray[np.uint8], picture: Picture, on_region: OnRegion | None) -> Picture:
    """The result, made of its colours and of the picture's alpha."""
    height, width, _ = pixels.shape
    planes = [as_grey(pixels) if picture.is_grey else pixels]
    if picture.alpha is not None:
        planes.append(resize(picture.alpha, width, height))
    result = with_planes(picture, planes)
    if on_region is not None:
        report_whole(result, picture, on_region)
    return result
